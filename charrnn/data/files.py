"""Files: finding the files of a text, and reading their bytes in blocks, decompressed."""

import bz2
import contextlib
import glob
import gzip
import lzma
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pooch
import tqdm

from charrnn.data.waiting import is_terminal, progress_lines, say_if_slow
from charrnn.errors import InputError, check, escape_control, shell_quote

BLOCK = 1 << 18
"""Bytes per read; a block and what is computed from it stay in the cache of a core."""


def user_path(path: str | os.PathLike) -> Path:
    """A path as the user gave it, a ``~`` of a user that exists expanded; others stay."""
    return Path(os.path.expanduser(path))


def relative_path(path: Path, here: Path | None = None) -> str:
    """A path as it is named from a folder, in a form that every key and option takes as a path.

    Control characters are escaped. What would be read as something else, such as ``null``, an
    option, a list, quotes or a user's home, begins with ``./``.

    Args:
        here: where the user is, by default this process's folder; with ``hydra.job.chdir=true`` a
            job's process is elsewhere.
    """
    return escape_control(_relative(path, here))


def shell_path(path: str | Path, here: Path | None = None) -> str:
    """A path as :func:`relative_path` names it, quoted for a shell."""
    return shell_quote(_relative(Path(path), here))


def _relative(path: Path, here: Path | None) -> str:
    here = here or Path.cwd()
    name = str(path.relative_to(here) if path.is_relative_to(here) else path)
    is_plain = re.match(r"[\w./]", name) and name not in ("null", "latest")
    return name if is_plain else f"./{name}"


def find_files(path: str | list[str], key: str = "data.path") -> list[Path]:
    """Return the files that a path, a glob, a folder or a list of them names.

    A list keeps its order. The files of a glob, or of a folder (recursively, without hidden
    ones), are sorted by path, compared by code point.

    Args:
        key: the setting to name in errors.

    Raises:
        InputError: a file is missing, or is not a regular file.
    """
    files = []
    for name in [path] if isinstance(path, str | os.PathLike) else path:
        name = os.path.expanduser(str(name))
        found = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if not found:
            raise InputError(f"{key}={name}: no such file in {os.getcwd()}")
        if os.path.isdir(name):
            found = files_below(Path(name))
            if not found:
                raise InputError(f"{key}={name}: the folder holds no file; give another one")
        files += [Path(f) for f in found if len(found) == 1 or not os.path.isdir(f)]
    for file in files:
        if not file.is_file():  # a pipe can be read only once, and a text is read up to three times
            raise InputError(f"{key}={file} is no regular file; save the text in one")
    if not files:
        raise InputError(f"{key} names no file; give a file, a folder, a glob or a list")
    return [file.absolute() for file in files]


def files_below(folder: Path) -> list[Path]:
    """Return the regular files below a folder, sorted, without hidden files and folders."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted((file for file in files if file.is_file()), key=lambda file: file.as_posix())


def fetch(url: str, sha256: str | None, cache_dir: str | Path | None = None) -> Path:
    """Download a file unless it is in the cache, and verify its SHA-256.

    Raises:
        InputError: the address or hash is malformed, or the download failed.
    """
    check("url", url, url.startswith("https://"), "an https:// address")
    valid = sha256 is not None and re.fullmatch("[0-9a-fA-F]{64}", sha256) is not None
    check("sha256", sha256, valid, "the 64 hexadecimal digits of what lies at the url")
    folder = Path(cache_dir or pooch.os_cache("charrnn")) / "downloads"
    logger = pooch.get_logger()
    logger.setLevel("WARNING")
    try:
        with say_if_slow(f"downloading {escape_control(url)}"):
            return Path(pooch.retrieve(url, known_hash=sha256, path=folder))
    except Exception as error:  # requests, urllib3 and pooch each raise types of their own
        reason = str(error).splitlines()[0]
        raise InputError(
            f"data.url={url}: cannot be fetched ({type(error).__name__}: {reason[:160]});"
            " give a copy with data.path=FILE"
        ) from error


def import_zstd():
    """Import the module of Zstandard, of the standard library from Python 3.14 on."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd


def open_zst(raw: BinaryIO) -> BinaryIO:
    """Open a Zstandard file."""
    try:
        return import_zstd().open(raw)
    except ImportError as error:
        raise InputError(
            f"{raw.name}: .zst files need an optional package; pip install 'charrnn[zst]'"
        ) from error


def open_zip(raw: BinaryIO) -> BinaryIO:
    """Open the only file of a zip archive."""
    archive = zipfile.ZipFile(raw)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise InputError(f"{raw.name}: holds {len(members)} files, not one; unpack it")
    return archive.open(members[0])


DECOMPRESS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": open_zst}
DECOMPRESS |= {".zip": open_zip}
"""Functions that open a compressed file, by file name suffix."""


def read_bytes(
    files: list[Path],
    max_bytes: int | None = None,
    decompress: bool = True,
    progress: Callable[[int], object] = lambda bytes_read: None,
) -> Iterator[bytes]:
    """Read files, one after the other, in blocks of at most ``BLOCK`` bytes.

    Args:
        max_bytes: stop after this many (decompressed) bytes; None reads all.
        progress: called after each block with the number of bytes read from disk.

    Raises:
        InputError: names the file that cannot be read, or is damaged.
    """
    left = float("inf") if max_bytes is None else max_bytes
    for file in files:
        if not left:
            return
        try:
            with open(file, "rb") as raw, contextlib.ExitStack() as stack:
                stream, position = raw, 0
                if decompress and file.suffix in DECOMPRESS:
                    stream = stack.enter_context(DECOMPRESS[file.suffix](raw))
                while left and (block := stream.read(int(min(BLOCK, left)))):
                    left -= len(block)
                    progress(raw.tell() - position)
                    position = raw.tell()
                    yield block
        except InputError:
            raise
        except Exception as error:  # each compression library raises its own types
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{file}: cannot be read ({reason})") from error


@contextlib.contextmanager
def progress_bar(files: list[Path], description: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar over the bytes of files after one second; lines where no terminal is."""
    size = sum(file.stat().st_size for file in files if file.exists())
    if not is_terminal(sys.stderr):
        yield progress_lines(size, description, "bytes")
        return
    settings = {"unit": "B", "unit_scale": True, "delay": 1, "leave": False, "disable": None}
    with tqdm.tqdm(total=size, desc=description, **settings) as bar:
        yield bar.update
