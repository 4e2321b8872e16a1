"""Containers and tensors in a file: saved atomically, verified, loaded without running code."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from charrnn.checkpoint.files import atomic_write, make_folder
from charrnn.data.waiting import say_if_slow
from charrnn.errors import InputError


class Damaged(InputError):
    """A file whose content is not what was written."""


def save(content: dict, path: str | Path, previous: Path | None = None) -> None:
    """Write containers and tensors atomically, creating the folder if needed.

    Args:
        previous: a path under which the replaced file is kept.

    Raises:
        OSError: the file cannot be written; the older file is unchanged.
        InputError: the content has objects that :func:`load` would refuse; likewise.
    """
    path = Path(path)
    make_folder(path.parent)
    with atomic_write(path, previous=previous) as file:
        write(content, file)
        file.flush()
        if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(file.name):
            raise InputError(
                f"{path}: {', '.join(sorted(unsafe))} could not be read again; a callback's"
                " state_dict may hold numbers, texts, tensors, and lists and dictionaries of these"
            )


def write(content: dict, file: BinaryIO) -> None:
    """Write containers and tensors to an open file. Raises OSError where that cannot be."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # Its zip writer replaces the error of a write that failed in the middle.
        if cause := _os_error(error):
            raise cause from error
        raise


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError that led to an error, None where there is none."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def load(file: Path) -> object:
    """Verify the checksums of a file that :func:`save` wrote and load it on the CPU.

    Raises:
        Damaged: the file is truncated, changed, or not written by ``torch.save``.
    """
    try:
        # torch.load does not verify the archive's checksums.
        with say_if_slow(f"reading {file}"), zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
            # For torch.load, a record that is longer than its bytes, or a folder, is memory as it
            # happens to be; testzip passes both.
            if any(i.file_size != i.compress_size or i.is_dir() or i.external_attr & 0x10
                   for i in archive.infolist()):  # fmt: skip
                raise zipfile.BadZipFile("a record without its bytes")
    except Exception as error:  # the type depends on where the damage is
        raise Damaged(f"{file}: it is torn or no checkpoint; give another checkpoint") from error
    if bad is not None:
        raise Damaged(f"{file}: it is damaged (the checksum of {bad} is wrong); give another one")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Damaged(
            f"{file}: it is damaged, or of another program; give another checkpoint"
        ) from error


def checksum(description: dict, state: dict[str, Tensor]) -> str:
    """Compute the SHA-256 of a model from its description and its named parameters."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
