"""Finding a checkpoint: the file that a path names, and whether it names one."""

import zipfile
from pathlib import Path

from charrnn.data.files import user_path
from charrnn.errors import InputError


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file that a path names.

    It is the file itself, the last checkpoint of a run's folder, or the model in a folder that
    ``charrnn export --to folder`` wrote.

    Raises:
        InputError: there is none.
    """
    path = user_path(path)
    exported = path / "model.safetensors"
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file() and exported.is_file():
        file = exported
    if not file.is_file():
        raise InputError(
            f"{path}: no checkpoint there; give a run's folder or a file of its checkpoints/"
        )
    return file


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path names a checkpoint or a run's folder, as opposed to a text file."""
    file = user_path(path)
    named = file.suffix in (".ckpt", ".safetensors") and file.exists()
    return file.is_dir() or named or (file.is_file() and zipfile.is_zipfile(file))
