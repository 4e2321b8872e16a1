"""Containers and tensors on disk: written whole or not at all, read without running code."""

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from charrnn.errors import InputError


class Damaged(InputError):
    """A file that is not what was written."""


def checksum(description: dict, state: dict[str, Tensor]) -> str:
    """SHA-256 of a model: its description, and its parameters by their names."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_whole(file: Path) -> object:
    """What ``torch.save`` wrote, once its checksums are seen to be right. Raises Damaged."""
    try:
        # The file holds checksums of its parts, which torch.load does not look at.
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except Exception as error:  # half a dozen kinds, by where the damage is
        raise Damaged(f"{file}: it is torn or no checkpoint; give another checkpoint") from error
    if bad is not None:
        raise Damaged(f"{file}: it is damaged (the checksum of {bad} is wrong); give another one")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Damaged(
            f"{file}: it is damaged, or of another program; give another checkpoint"
        ) from error


def write(checkpoint: dict, path: str | Path, previous: Path | None = None) -> None:
    """Write containers and tensors whole or not at all, whatever happens in between.

    Args:
        previous: a name beside it for what stood under its own before.

    Raises:
        OSError: it cannot be written; what stood there stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, since a rename is atomic within one file system only.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(scratch, "wb") as f:
            torch.save(checkpoint, f)
            f.flush()
            os.fsync(f.fileno())
        if previous is not None and path.exists():
            link(path, previous)
        os.replace(scratch, path)
        sync(path.parent)  # or a loss of power could take the new name back
    finally:
        scratch.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Have the names in a folder on disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link(file: Path, name: Path) -> None:
    """Give a file a second name, in place of what had that name before; a copy where links fail."""
    scratch = name.with_name(f".{name.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    try:
        try:
            os.link(file, scratch)
        except OSError:
            shutil.copyfile(file, scratch)
        os.replace(scratch, name)
    finally:  # it stands still where both names were the same file's already
        scratch.unlink(missing_ok=True)
