"""Corpus: text files as one encoded, memory-mapped array, cached by content."""

import codecs
import glob
import hashlib
import json
import os
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor

from charrnn.charset import CODE_POINTS, UNITS, Charset
from charrnn.errors import InputError, check

CHUNK = 1 << 22
LAYOUT = 1  # of the files in the cache; part of their key


@dataclass(frozen=True)
class Corpus:
    """An encoded text."""

    tokens: Tensor
    """(N,) indices, uint8, uint16 or uint32, mapped from a file."""
    charset: Charset
    sha256: str
    """Of the bytes read, the files one after the other."""


def open_corpus(
    files: list[Path],
    unit: str = "char",
    max_bytes: int | None = None,
    cache_dir: str | Path | None = None,
) -> Corpus:
    """Encode files, read one after the other as one text, or find them encoded in the cache.

    Text is UTF-8, undecodable bytes become U+FFFD, newlines stay as they are.

    Args:
        unit: "char" or "byte".
        max_bytes: read no more than this, to the last whole character; None reads all.
        cache_dir: where encoded texts are kept; None is the user's cache folder.

    Raises:
        InputError: a file cannot be read, the text has fewer than two characters, or the cache
            folder cannot be written.
    """
    check("unit", unit, unit in UNITS, " or ".join(UNITS))
    check("max_bytes", max_bytes, max_bytes is None or max_bytes >= 2, "at least 2, or null")
    digest = hashlib.sha256()
    for chunk in read_bytes(files, max_bytes):
        digest.update(chunk)
    sha256 = digest.hexdigest()
    root = Path(cache_dir or pooch.os_cache("charrnn")) / "corpus"
    # The same bytes end in half a character, or in U+FFFD, as they are cut there or not.
    cut = "" if max_bytes is None else f"-{max_bytes}"
    folder = root / f"{sha256[:32]}-{unit}{cut}-{LAYOUT}"
    corpus = read_cached(folder, sha256)
    if corpus is None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            encode(files, unit, max_bytes, folder)
        except OSError as error:
            raise InputError(
                f"data.cache_dir: cannot write {root} ({error.strerror}); name another folder"
            ) from error
        corpus = read_cached(folder, sha256)
    if len(corpus.tokens) < 2:
        shutil.rmtree(folder)
        raise InputError(
            f"data.path: {describe(files)} has {len(corpus.tokens)} characters;"
            " training needs two or more"
        )
    return corpus


def find_files(path: str | list[str]) -> list[Path]:
    """The files that a path, a glob or a list of either stands for; a glob's in sorted order.

    Raises InputError, naming the key data.path, for what is missing or a folder.
    """
    files = []
    for name in [path] if isinstance(path, str | os.PathLike) else path:
        name = os.path.expanduser(str(name))
        found = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if not found:
            raise InputError(f"data.path={name}: no such file in {os.getcwd()}")
        files += [Path(f) for f in found if len(found) == 1 or not os.path.isdir(f)]
    for file in files:
        if file.is_dir():
            raise InputError(f"data.path={file} is a folder; give a file or a glob ({file}/*.txt)")
        if not file.is_file():  # a pipe can be read once, and this needs three times
            raise InputError(f"data.path={file} is no regular file; save the text in one")
    if not files:
        raise InputError("data.path names no file; give a file, a glob or a list")
    return [file.absolute() for file in files]


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


def read_bytes(files: list[Path], max_bytes: int | None) -> Iterator[bytes]:
    """The bytes of files, one after the other, in pieces."""
    left = float("inf") if max_bytes is None else max_bytes
    for file in files:
        if not left:
            return
        try:
            with open(file, "rb") as f:
                while left and (chunk := f.read(int(min(CHUNK, left)))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise InputError(f"data.path={file}: cannot be read ({error.strerror})") from error


def read_points(files: list[Path], unit: str, max_bytes: int | None) -> Iterator[np.ndarray]:
    """The code points (or bytes) of files in pieces, each (n,) uint32 (or uint8)."""
    if unit == "byte":
        yield from (np.frombuffer(chunk, np.uint8) for chunk in read_bytes(files, max_bytes))
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    read = 0
    for chunk in read_bytes(files, max_bytes):
        read += len(chunk)
        yield np.frombuffer(decoder.decode(chunk).encode("utf-32-le"), np.uint32)
    # Where max_bytes cut a character in two, its first half is no character of the text.
    if read != max_bytes:
        yield np.frombuffer(decoder.decode(b"", True).encode("utf-32-le"), np.uint32)


def encode(files: list[Path], unit: str, max_bytes: int | None, folder: Path) -> None:
    """Write the encoded text of files into a folder, whole or not at all."""
    seen = np.zeros(256 if unit == "byte" else CODE_POINTS, bool)
    for points in read_points(files, unit, max_bytes):
        seen[points] = True
    charset = Charset("".join(map(chr, np.flatnonzero(seen))), unit)
    index = charset.index
    size = 0
    scratch = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        with open(scratch / "tokens.bin", "wb") as f:
            for points in read_points(files, unit, max_bytes):
                f.write(index[points].tobytes())
                size += len(points)
        meta = {"charset": charset.state_dict(), "size": size, "dtype": index.dtype.name}
        (scratch / "meta.json").write_text(json.dumps(meta), "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        try:
            scratch.rename(folder)
        except OSError:
            if not (folder / "meta.json").exists():  # else another process was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_cached(folder: Path, sha256: str) -> Corpus | None:
    """The encoded text in a folder; None where there is none, or a torn one."""
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        size, dtype = meta["size"], np.dtype(meta["dtype"])
        tokens = np.zeros(0, dtype)
        if size:
            # Mapped copy-on-write: torch wants a writable array, and nothing writes into it.
            tokens = np.memmap(folder / "tokens.bin", dtype, "c", shape=(size,))
        return Corpus(torch.from_numpy(tokens), Charset(**meta["charset"]), sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe(files: list[Path]) -> str:
    """A file's name, or how many there are."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
