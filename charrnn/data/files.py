"""Files: which ones a text is read from, and their bytes in pieces, decompressed."""

import bz2
import contextlib
import glob
import gzip
import lzma
import os
import re
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pooch

from charrnn.errors import InputError, check

BLOCK = 1 << 18
"""Bytes of a piece: what is made of it stays in a core's cache, and no more is in memory."""


def find_files(path: str | list[str], key: str = "data.path") -> list[Path]:
    """The files that a path, a glob, a folder or a list of them stands for.

    A list keeps its order. Files of a glob or a folder (all that lie below it, but hidden ones) are
    sorted by their paths, compared by code point.

    Raises InputError, naming the key, for what is missing or no file.
    """
    files = []
    for name in [path] if isinstance(path, str | os.PathLike) else path:
        name = os.path.expanduser(str(name))
        found = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if not found:
            raise InputError(f"{key}={name}: no such file in {os.getcwd()}")
        if os.path.isdir(name):
            found = below(Path(name))
            if not found:
                raise InputError(f"{key}={name}: the folder holds no file; give another one")
        files += [Path(f) for f in found if len(found) == 1 or not os.path.isdir(f)]
    for file in files:
        if not file.is_file():  # a pipe can be read once, and this needs three times
            raise InputError(f"{key}={file} is no regular file; save the text in one")
    if not files:
        raise InputError(f"{key} names no file; give a file, a folder, a glob or a list")
    return [file.absolute() for file in files]


def below(folder: Path) -> list[Path]:
    """The regular files below a folder, sorted; neither hidden ones nor those of hidden folders."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted((file for file in files if file.is_file()), key=lambda file: file.as_posix())


def stdlib_files() -> list[Path]:
    """The interpreter's own library: its .py files, sorted, without tests and site-packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    return [root / name for name in names if not left_out.intersection(name.split("/"))]


def fetch(url: str, sha256: str | None, cache_dir: str | Path | None = None) -> Path:
    """Download a file once, checked by its SHA-256. Raises InputError where that fails."""
    check("url", url, url.startswith("https://"), "an https:// address")
    is_sum = sha256 is not None and re.fullmatch("[0-9a-fA-F]{64}", sha256) is not None
    check("sha256", sha256, is_sum, "the 64 hexadecimal digits of what lies at the url")
    folder = Path(cache_dir or pooch.os_cache("charrnn")) / "downloads"
    logger = pooch.get_logger()
    logger.setLevel("WARNING")
    try:
        return Path(pooch.retrieve(url, known_hash=sha256, path=folder))
    except Exception as error:  # requests, urllib3 and pooch each raise their own
        reason = str(error).splitlines()[0]
        raise InputError(
            f"data.url={url}: cannot be fetched ({type(error).__name__}: {reason[:160]});"
            " give a copy with data.path=FILE"
        ) from error


def open_zst(raw: BinaryIO) -> BinaryIO:
    """A decompressed Zstandard file, by the standard library from Python 3.14 on."""
    try:
        try:
            from compression import zstd
        except ImportError:
            from backports import zstd
    except ImportError as error:
        raise InputError(
            f"{raw.name}: .zst files need a package more; pip install 'charrnn[zst]'"
        ) from error
    return zstd.open(raw)


def open_zip(raw: BinaryIO) -> BinaryIO:
    """The one file in a zip archive."""
    archive = zipfile.ZipFile(raw)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise InputError(f"{raw.name}: holds {len(members)} files, not one; unpack it")
    return archive.open(members[0])


DECOMPRESS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": open_zst}
DECOMPRESS |= {".zip": open_zip}
"""What opens a compressed file, by its suffix."""


def read_bytes(
    files: list[Path],
    max_bytes: int | None = None,
    decompress: bool = True,
    progress: Callable[[int], object] = lambda bytes_read: None,
) -> Iterator[bytes]:
    """The bytes of files, one after the other, in pieces of at most ``BLOCK``.

    Args:
        max_bytes: read no more than this; None reads all.
        progress: called after each piece with the bytes of the disk that it took.

    Raises InputError, naming the file, where one cannot be read, or is damaged.
    """
    left = float("inf") if max_bytes is None else max_bytes
    for file in files:
        if not left:
            return
        try:
            with open(file, "rb") as raw, contextlib.ExitStack() as stack:
                stream, place = raw, 0
                if decompress and file.suffix in DECOMPRESS:
                    stream = stack.enter_context(DECOMPRESS[file.suffix](raw))
                while left and (block := stream.read(int(min(BLOCK, left)))):
                    left -= len(block)
                    progress(raw.tell() - place)
                    place = raw.tell()
                    yield block
        except InputError:
            raise
        except Exception as error:  # each way to compress has its own
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{file}: cannot be read ({reason})") from error
