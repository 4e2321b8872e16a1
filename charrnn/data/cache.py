"""The cache of encoded texts: one folder per text, written atomically, locked and checksummed.

An entry holds ``tokens.bin`` (the indices) and ``meta.json`` (alphabet, sizes and a CRC-32 of
both). Its name is derived from the SHA-256 of the text and from the settings. N characters.
"""

import contextlib
import hashlib
import json
import shutil
import time
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import pooch
import torch
from torch import Tensor

from charrnn.data.charset import Charset
from charrnn.data.files import BLOCK, progress_bar, user_path
from charrnn.data.waiting import hold
from charrnn.errors import escape_control

LAYOUT = 2
"""Version of the format of an entry; part of its key."""


class Entry(NamedTuple):
    """A cached text."""

    tokens: Tensor
    """(N,) indices, memory-mapped; must not be written to."""
    charset: Charset
    unknown: int
    """Number of characters with index 0."""


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Return the folder that holds the entries; None selects the user's cache folder."""
    return user_path(cache_dir or pooch.os_cache("charrnn")) / "corpus"


def entry_folder(root: Path, sha256: str, settings: list) -> Path:
    """Return the folder of the entry for a text and JSON-serializable settings."""
    key = hashlib.sha256(json.dumps([LAYOUT, *settings]).encode()).hexdigest()
    return root / f"{sha256[:32]}-{key[:16]}"


def lock_entry(folder: Path) -> contextlib.AbstractContextManager:
    """Hold the lock of an entry; print a line on standard error if another process holds it."""
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    return hold(lock, "waiting for another process, which encodes the same text")


def write_entry(folder: Path, text: str, charset: Charset, chunks: Iterable[np.ndarray]) -> None:
    """Write an entry atomically; the caller holds its lock.

    Args:
        text: description of the text for :func:`list_cache`.
        chunks: indices, in the smallest type that holds them all (``charset.index.dtype``).
    """
    size = unknown = checksum = 0
    scratch = folder.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed
    try:
        scratch.mkdir(exist_ok=True)  # the lock is held
        with open(scratch / "tokens.bin", "wb") as f:
            for indices in chunks:
                size += len(indices)
                unknown += int(np.count_nonzero(indices == 0))  # faster than counting the others
                checksum = zlib.crc32(indices, checksum)
                f.write(indices)
        meta = {
            "text": text,
            "size": size,
            "unknown": unknown,
            "dtype": charset.index.dtype.name,
            "charset": charset.state_dict(),
        }
        meta["crc32"] = zlib.crc32(json.dumps(meta).encode(), checksum)
        (scratch / "meta.json").write_text(json.dumps(meta), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_entry(folder: Path, verify: bool = True) -> Entry | None:
    """Open an entry; return None if it is missing or damaged.

    Args:
        verify: read all of it to check its CRC-32.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        expected, checksum = meta.pop("crc32"), 0
        file = folder / "tokens.bin"
        size, dtype = meta["size"], np.dtype(meta["dtype"])
        if file.stat().st_size != size * dtype.itemsize:
            return None
        if verify:
            with progress_bar([file], "checking") as update, open(file, "rb") as f:
                while block := f.read(BLOCK):
                    checksum = zlib.crc32(block, checksum)
                    update(len(block))
            if zlib.crc32(json.dumps(meta).encode(), checksum) != expected:
                return None
        # The pages of a writable map would count as memory in use, all of them.
        tokens = np.memmap(file, dtype, "r", shape=(size,)) if size else np.zeros(0, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an array that is not writable
            tensor = torch.from_numpy(tokens)
        return Entry(tensor, Charset(**meta["charset"]), meta["unknown"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def list_cache(root: Path) -> list[str]:
    """Return one line for each entry, newest first, and a line with their total size.

    Control characters, as file names may contain, are escaped.

    Args:
        root: the result of :func:`cache_folder`.
    """
    lines, total = [], 0
    folders = [folder for folder in root.glob("*-*") if folder.is_dir()]
    for folder in sorted(folders, key=lambda folder: -folder.stat().st_mtime):
        size = sum(file.stat().st_size for file in folder.iterdir())
        total += size
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(folder.stat().st_mtime))
        try:
            meta = json.loads((folder / "meta.json").read_text("utf-8"))
            about = f"{meta['size']:,} characters of {meta['text']}"
        except (OSError, ValueError, KeyError, TypeError):
            about = "incomplete: being written, or left by a process that was killed"
        lines.append(f"{date}  {size / 1e6:10,.1f} MB  {about}")
    lines.append(f"{len(lines)} texts, {total / 1e6:,.1f} MB in {root}")
    return list(map(escape_control, lines))


def clear_cache(root: Path) -> None:
    """Remove every entry that is not being written by a process.

    Args:
        root: the result of :func:`cache_folder`.
    """
    for folder in {path.with_suffix("") for path in root.glob("*-*")}:
        lock = filelock.FileLock(folder.with_suffix(".lock"), timeout=0)
        with contextlib.suppress(filelock.Timeout), lock:
            for path in (folder, folder.with_suffix(".part")):
                shutil.rmtree(path, ignore_errors=True)
