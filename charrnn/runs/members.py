"""Which checkpoints a path names: the last one of a run, or those of all jobs of a sweep."""

from collections.abc import Iterable
from pathlib import Path

from charrnn.checkpoint.find import find_checkpoint
from charrnn.data.files import user_path
from charrnn.errors import InputError
from charrnn.runs.records import DONE
from charrnn.runs.sweep import job_number, read_jobs


def find_checkpoints(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return the checkpoint files of one or several paths.

    Args:
        paths: checkpoint files, run folders (their last checkpoint), or sweep folders (the last
            checkpoint of every job).

    Raises:
        InputError: a checkpoint is missing, or a job of a sweep has not finished.
    """
    files = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = user_path(path)
        if not (path / "multirun.yaml").is_file():
            files.append(find_checkpoint(path))
            continue
        for job in sorted(read_jobs(path), key=job_number):
            if job.state not in DONE:
                raise InputError(
                    f"{job.folder}: {job.state}; start the sweep again, or give a list of"
                    " its other runs"
                )
            files.append(find_checkpoint(job.folder))
    if not files:
        raise InputError("checkpoint: names none; give one, or several")
    return files
