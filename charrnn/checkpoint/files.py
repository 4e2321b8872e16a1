"""Atomic writes: a file on disk is complete or absent, whatever interrupts the write.

Imports nothing but the standard library, so that every writer of a file can use it.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LONG = 200
"""Bytes of a name, of which file systems take 255."""
_scratch: set[Path] = set()
"""Scratch files that are being written."""


@contextlib.contextmanager
def atomic_write(
    path: str | Path, mode: str = "wb", *, previous: Path | None = None, **options
) -> Iterator[IO]:
    """Open a file for writing; it appears under its name only when the block ends without error.

    The content goes to a scratch file in the same folder, since a rename is atomic within one file
    system only, is flushed to disk and renamed. After an error the scratch file is removed and an
    older file at ``path`` is unchanged.

    Args:
        path: the file to create or replace. Its folder must exist.
        mode: "wb", or "w" for text, which is UTF-8 unless ``encoding`` is given.
        previous: a path in the same file system under which the replaced file is kept.
        options: further arguments of :func:`open`.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.is_dir():  # before the work, and also where the path has no name, as "."
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # a rename would put a file in place of /dev/null
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    scratch = scratch_file(path)
    _scratch.add(scratch)
    try:
        with open(scratch, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            link(path, previous)
        os.replace(scratch, path)
        sync(path.parent)  # or a loss of power could undo the rename
    except OSError as error:
        if error.filename in (None, str(scratch)):
            error.filename = str(path)  # writing to an open file names none
        raise
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        _scratch.discard(scratch)


def scratch_file(path: Path) -> Path:
    """The file beside another in which this process writes it; no name becomes too long."""
    name, data = path.name, os.fsencode(path.name)
    if len(data) > LONG:
        name = hashlib.sha256(data).hexdigest()
    return path.with_name(f".{name}.{os.getpid()}")


def remove_own_scratch() -> None:
    """Remove the scratch files that this process is writing, which ends at once after it."""
    for file in list(_scratch):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def remove_scratch(folder: Path) -> None:
    """Remove the scratch files of processes that were killed; those of others are left."""
    for file in folder.glob(".*"):
        name = re.fullmatch(r"\..+\.(\d+)", file.name)
        if name and (int(name[1]) == os.getpid() or not is_alive(int(name[1]))):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and flush their names to disk."""
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in made:
        sync(new.parent)


def sync(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system supports that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link(file: Path, name: Path) -> None:
    """Atomically give a file a second name, replacing that name; copy where links fail."""
    scratch = scratch_file(name)
    scratch.unlink(missing_ok=True)
    try:
        try:
            os.link(file, scratch)
        except OSError:
            shutil.copyfile(file, scratch)
        os.replace(scratch, name)
    finally:  # os.replace leaves it where both names belong to the same file already
        scratch.unlink(missing_ok=True)
