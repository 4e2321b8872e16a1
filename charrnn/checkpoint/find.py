"""Finding a checkpoint: the one that a path names, or the newest undamaged one of a run."""

import contextlib
import math
import sys
import zipfile
from pathlib import Path

from charrnn.errors import InputError, escape_control


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file that a path names: itself, or the last one of a run's folder.

    Raises:
        InputError: there is none.
    """
    path = Path(path).expanduser()
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{path}: no checkpoint there; give a run's folder or a file of its checkpoints/"
        )
    return file


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path names a checkpoint or a run's folder, as opposed to a text file."""
    file = Path(path).expanduser()
    named = file.suffix in (".ckpt", ".safetensors") and file.exists()
    return file.is_dir() or named or (file.is_file() and zipfile.is_zipfile(file))


def find_resumable(run: Path) -> Path:
    """Return a run's last checkpoint, or the newest undamaged one where that is damaged.

    In the second case a line on standard error names it.

    Raises:
        InputError: no checkpoint can be resumed from.
    """
    from charrnn.checkpoint.format import read
    from charrnn.checkpoint.serialization import Damaged

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
    from charrnn.checkpoint.format import read

    found = {}
    for file in sorted((run / "checkpoints").glob("*.ckpt")):
        with contextlib.suppress(InputError):
            found[file] = read(file)["charrnn"].get("windows", 0)
    found = {file: number for file, number in found.items() if number <= windows}
    if not found:
        raise InputError("no other checkpoint of this run is whole")
    file = max(found, key=found.get)
    return file, found[file]
