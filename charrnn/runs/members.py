"""Which checkpoints a path stands for: a run's last one, or those of all runs of a sweep."""

from collections.abc import Iterable
from pathlib import Path

from charrnn.checkpoint.find import find_checkpoint
from charrnn.errors import InputError
from charrnn.runs import sweeps


def find_all(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The checkpoint files of a path, or of several; of a sweep's folder the last of each run.

    Raises InputError where one is missing, or a run of a sweep is not at its end.
    """
    files = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path).expanduser()
        if not (path / "multirun.yaml").is_file():
            files.append(find_checkpoint(path))
            continue
        for job in sorted(sweeps.read(path), key=sweeps.by_number):
            if job.state not in sweeps.DONE:
                raise InputError(
                    f"{job.folder}: {job.state}; start the sweep again, or give a list of"
                    " its other runs"
                )
            files.append(find_checkpoint(job.folder))
    if not files:
        raise InputError("checkpoint: names none; give one, or several")
    return files
