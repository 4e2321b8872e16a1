"""job.json: the overrides of a run or job and its state, in RUN/.hydra/job.json."""

import json
from collections.abc import Iterable
from pathlib import Path

from charrnn.checkpoint.files import atomic_write
from charrnn.training.distributed import is_rank_zero

DONE = ("finished", "stopped")
"""States of a job that a restarted sweep does not run again."""


def read_record(run: Path) -> dict:
    """Read a run's record.

    Returns:
        ``overrides`` (a list of strings), ``state`` and ``reason`` (strings); an empty dictionary
        if there is no record or it is damaged.
    """
    try:
        record = json.loads((run / ".hydra" / "job.json").read_text("utf-8"))
        kinds = {"overrides": list, "state": str, "reason": str}
        is_whole = all(isinstance(record[key], kind) for key, kind in kinds.items())
        return record if is_whole and is_list_of_strings(record["overrides"]) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def write_record(run: Path, overrides: Iterable[str], state: str, reason: str = "") -> None:
    """Write a run's record atomically, in rank zero.

    Args:
        run: the run's folder.
        overrides: as given on the command line; those of an existing record stay.
        state: "running", "finished", "stopped" (by a callback) or "failed".
        reason: why it stopped or failed, in one line.
    """
    if not is_rank_zero():
        return
    file = run / ".hydra" / "job.json"
    file.parent.mkdir(exist_ok=True)
    record = {"overrides": list(overrides)} | read_record(run) | {"state": state, "reason": reason}
    with atomic_write(file, "w") as f:
        json.dump(record, f, indent=1)


def is_list_of_strings(values: object) -> bool:
    """Whether a value read from a file is a list of strings."""
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
