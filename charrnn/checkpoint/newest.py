"""The checkpoint that a run resumes from: its last one, or the newest that is undamaged."""

import contextlib
import math
import sys
from pathlib import Path

from charrnn.checkpoint.format import read
from charrnn.checkpoint.serialization import Damaged
from charrnn.errors import InputError, escape_control


def find_resumable(run: Path) -> Path:
    """Return a run's last checkpoint, or the newest undamaged one where that is damaged.

    In the second case a line on standard error names it.

    Raises:
        InputError: no checkpoint can be resumed from.
    """
    file = run / "checkpoints" / "last.ckpt"
    try:
        read(file)
        return file
    except InputError as error:
        if file.exists() and not isinstance(error, Damaged):
            raise
        reason = str(error).partition("; ")[0]
    try:
        file, windows = find_newest(run)
    except InputError as error:
        raise Damaged(f"{reason}, and {error}; start the run again") from error
    print(f"{escape_control(reason)}: going on from {file.name}, window {windows}", file=sys.stderr)
    return file


def find_newest(run: Path, windows: float = math.inf) -> tuple[Path, int]:
    """Return a run's newest undamaged checkpoint and the number of its window.

    Args:
        windows: ignore checkpoints of later windows.

    Raises:
        InputError: there is none.
    """
    found = {}
    for file in sorted((run / "checkpoints").glob("*.ckpt")):
        with contextlib.suppress(InputError):
            found[file] = read(file)["charrnn"].get("windows", 0)
    found = {file: number for file, number in found.items() if number <= windows}
    if not found:
        raise InputError("no other checkpoint of this run is whole")
    file = max(found, key=found.get)
    return file, found[file]
