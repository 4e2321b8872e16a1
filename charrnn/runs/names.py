"""Names of jobs: what identifies a job, and its folder, such as 0_model=gru_resize,lr=0.002."""

import contextlib
import itertools
import re
from pathlib import Path

from charrnn.runs.records import read_record

NOT_SETTINGS = ("launcher", "pruner", "sampler", "sweep")
"""Config groups that say how jobs are started. They do not change what a job is."""


def job_folder_name(sweep: Path, number: int, overrides: list[str], fixed: list[str]) -> str:
    """Return a job's folder name: that of an existing job with the same overrides, or a new one.

    Args:
        sweep: the folder of the sweep.
        number: of the job in this sweep. If another job has it, a new name gets the next free one.
        overrides: of the job, as given on the command line.
        fixed: keys that are the same in all jobs, which a new name does not show.
    """
    identity = job_identity(overrides)
    taken = {}
    for folder in sorted(sweep.glob("[0-9]*/")):
        recorded = read_record(folder).get("overrides")
        if recorded is not None and job_identity(recorded) == identity:
            return folder.name
        if recorded is not None:
            taken[int(re.match(r"\d+", folder.name)[0])] = folder.name
    if number in taken:
        number = max(taken) + 1
    label = job_label(overrides, fixed)
    return f"{number}_{label}" if label else str(number)


def free_folder_name(sweep: Path, name: str, overrides: list[str]) -> str:
    """Return a job's folder name where the user chose one: with a number where another job has it.

    Args:
        name: as chosen; it may be the same for several jobs.
        overrides: of the job, as given on the command line.
    """
    identity = job_identity(overrides)
    for number in itertools.count(1):
        found = name if number == 1 else f"{name}-{number}"
        recorded = read_record(sweep / found).get("overrides")
        if recorded is None or job_identity(recorded) == identity:
            return found
    raise AssertionError


def job_identity(overrides: list[str]) -> list[str]:
    """Return what identifies a job: jobs with equal identities are the same job."""
    pairs = split_overrides(overrides)
    return sorted(f"{k}={v}" for k, v in pairs.items() if k not in NOT_SETTINGS)


def job_label(overrides: list[str], fixed: list[str]) -> str:
    """Return the varied overrides as a short and safe file name: model=gru_resize,lr=0.002."""
    pairs = varied_overrides(overrides, fixed)
    parts = []
    for name, value in zip(short_names(list(pairs)), pairs.values()):
        safe = re.sub(r"[^\w.+-]+", "-", short_number(value))[:40]
        parts.append(f"{name}={safe}")
    return ",".join(parts)[:160]


def short_names(keys: list[str]) -> list[str]:
    """Return keys without their groups, where the last part says which one is meant.

    The class of a group, as ``model._target_``, has the group's name.
    """
    last = [key.removesuffix("._target_").rpartition(".")[2] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last)]


def varied_overrides(overrides: list[str], fixed: list[str]) -> dict[str, str | int | float]:
    """Return the overrides in which jobs differ, with numbers as numbers."""
    left_out = (*fixed, *NOT_SETTINGS)
    pairs = {k: unquote(v) for k, v in split_overrides(overrides).items() if k not in left_out}
    for key, value in pairs.items():
        with contextlib.suppress(ValueError):
            pairs[key] = float(value)
        with contextlib.suppress(ValueError):
            pairs[key] = int(value)
    return pairs


def split_overrides(overrides: list[str]) -> dict[str, str]:
    """Return keys and values as they were given."""
    return {o.lstrip("+").partition("=")[0]: o.partition("=")[2] for o in overrides}


def unquote(value: str) -> str:
    """Return a value without the quotes and backslashes of Hydra's grammar; '' stays as it is."""
    quote = value[:1]
    if len(value) > 2 and quote in ("'", '"') and value.endswith(quote):
        return value[1:-1].replace(f"\\{quote}", quote)
    return re.sub(r"\\([^\w'\"])", r"\1", value)


def short_number(value: str | int | float) -> str:
    """Format a value with few characters: 0.0017826497151386949 is 0.001783."""
    text = str(value)
    with contextlib.suppress(ValueError):
        text = f"{float(text):.4g}" if len(text) > 6 else text
    return text
