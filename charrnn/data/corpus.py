"""Corpus: text files as one encoded, memory-mapped array, cached by content.

A text is read piece by piece, three times: for its hash, which is its name in the cache;
for its alphabet; and to be encoded. A text in the cache is read once, for its hash, and what it is
encoded to once, for its checksum. ``python -m charrnn.data.corpus`` lists the cache and clears it.
"""

import argparse
import codecs
import contextlib
import hashlib
import itertools
import json
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import pooch
import torch
import tqdm
from torch import Tensor

from charrnn.data.charset import BOUNDARY, CODE_POINTS, UNKNOWN, Charset, border, to_points
from charrnn.data.files import BLOCK, DECOMPRESS, read_bytes
from charrnn.errors import InputError, check, escape_control

LAYOUT = 2  # of the files in the cache; part of their key
LONGEST = 1 << 20
"""Characters that a text may go on for without a place where it can be cut for normalisation."""


@dataclass(frozen=True)
class Corpus:
    """An encoded text."""

    tokens: Tensor
    """(N,) indices, uint8, uint16 or uint32, mapped from a file; not to be written into."""
    charset: Charset
    sha256: str
    """Of the files' bytes, one after the other, as they lie on the disk."""
    unknown: int
    """How many of the characters are outside the alphabet, or U+FFFD."""


def open_corpus(
    files: list[Path],
    unit: str = "char",
    max_bytes: int | None = None,
    cache_dir: str | Path | None = None,
    normalize: str | None = None,
    lowercase: bool = False,
    document: str | None = None,
    min_count: int = 1,
    charset: Charset | None = None,
) -> Corpus:
    """Encode files, read one after the other as one text, or find them encoded in the cache.

    Text is UTF-8, undecodable bytes become U+FFFD, newlines and a byte order mark stay as they
    are. Files named .gz, .xz, .bz2, .zst and .zip are decompressed.

    Args:
        unit, normalize, lowercase: as in :class:`charrnn.Charset`.
        max_bytes: read no more than this, to the last whole character; None reads all.
        cache_dir: where encoded texts are kept; None is the user's cache folder.
        document: "file" makes each file a document, another string is what separates documents;
            None reads one text without end. Each document that is not empty then begins with
            ``charrnn.data.charset.BOUNDARY``, U+FFFF, and what separated them is gone.
        min_count: characters that occur less often are left out of the alphabet.
        charset: the alphabet, and how the text is read, instead of the settings above but
            ``document``; None makes one of the text.

    Raises:
        InputError: a file cannot be read, the text has fewer than two characters, or the cache
            folder cannot be written.
    """
    check("max_bytes", max_bytes, max_bytes is None or max_bytes >= 2, "at least 2, or null")
    check("min_count", min_count, min_count >= 1, "a whole number, at least 1")
    check("document", document, document != "", "file, or what separates documents, or null")
    empty = charset or Charset("", unit, normalize, lowercase, document is not None)
    before = stamps(files)
    sha256 = hash_files(files, max_bytes)
    # The same bytes end in half a character, or in U+FFFD, as they are cut there or not.
    settings = [LAYOUT, max_bytes, min_count, charset and charset.alphabet, empty.reading, document,
                [f.suffix for f in files if f.suffix in DECOMPRESS],
                [size for size, _ in before] if document == "file" else None]  # fmt: skip
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    root = cache(cache_dir)
    folder = root / f"{sha256[:32]}-{key[:16]}"
    corpus = read_cached(folder, sha256)
    try:
        if corpus is None:
            root.mkdir(parents=True, exist_ok=True)
            with only_one(folder):
                corpus = read_cached(folder, sha256)  # another process may have been faster
                if corpus is None:
                    encode(files, max_bytes, empty, document, min_count, charset is None, folder)
                    if stamps(files) != before:
                        shutil.rmtree(folder)
                        raise InputError(
                            f"{describe(files)}: changed while it was read; start again,"
                            " with a copy where it is still written"
                        )
                    corpus = read_cached(folder, sha256, verify=False)
    except OSError as error:
        raise InputError(
            f"data.cache_dir: cannot write {root} ({error.strerror}); name another folder"
        ) from error
    if corpus is None:
        raise InputError(f"data.cache_dir: what was written into {root} reads otherwise")
    if len(corpus.tokens) < 2:
        shutil.rmtree(folder)
        raise InputError(
            f"{describe(files)}: has {len(corpus.tokens)} characters; two or more are needed"
        )
    return corpus


def cache(cache_dir: str | Path | None) -> Path:
    """Where encoded texts are kept."""
    return Path(cache_dir or pooch.os_cache("charrnn")).expanduser() / "corpus"


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time into a folder of the cache. The others wait, and say so.

    The system frees the lock of a process that ends, however it ends.
    """
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0.5)
    except filelock.Timeout:
        print("waiting for another process, which encodes the same text", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def progress(files: list[Path], doing: str) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, from the first second on, that counts bytes of files."""
    size = sum(file.stat().st_size for file in files if file.exists())
    settings = {"unit": "B", "unit_scale": True, "delay": 1, "leave": False, "disable": None}
    with tqdm.tqdm(total=size, desc=doing, **settings) as bar:
        yield bar.update


def hash_files(files: list[Path], max_bytes: int | None) -> str:
    """The SHA-256 of files' bytes as they lie on the disk."""
    digest = hashlib.sha256()
    with progress(files, "reading") as update:
        # What max_bytes counts is decompressed.
        limit = None if any(file.suffix in DECOMPRESS for file in files) else max_bytes
        for block in read_bytes(files, limit, decompress=False, progress=update):
            digest.update(block)
    return digest.hexdigest()


def read_text(
    files: list[Path],
    max_bytes: int | None,
    charset: Charset,
    document: str | None = None,
    doing: str = "finding the alphabet",
) -> Iterator[str]:
    """The text of files in pieces, as a charset reads it; documents as in :func:`open_corpus`."""
    with progress(files, doing) as update:
        if document == "file":
            pieces = itertools.chain.from_iterable(read_documents(files, max_bytes, update))
        else:
            pieces = read_bytes(files, max_bytes, progress=update)
            if charset.unit == "char":
                pieces = decode(pieces, max_bytes)
            if document is not None:
                pieces = begin_documents(pieces, document)
        if charset.normalize is not None:
            pieces = cut_at_borders(pieces)
        yield from map(charset.characters, pieces)


def read_documents(
    files: list[Path], max_bytes: int | None, update: Callable[[int], object]
) -> Iterator[Iterator[str]]:
    """For each file its text, as one document."""
    for file in files:
        blocks = read_bytes([file], max_bytes, progress=update)
        if max_bytes is not None:
            blocks = list(blocks)
        yield begin_documents(decode(blocks, max_bytes), None)
        if max_bytes is not None:
            max_bytes -= sum(map(len, blocks))


def begin_documents(pieces: Iterator[str], separator: str | None) -> Iterator[str]:
    """The same text with ``BOUNDARY`` before every document that is not empty.

    Args:
        separator: what stands between documents, and is left out; None where there is but one.
    """
    begins, held = True, ""
    # What may be the beginning of a separator is held back; at the end nothing is.
    for piece in itertools.chain(pieces, [None]):
        text = (held + (piece or "")).replace(BOUNDARY, UNKNOWN)
        parts = text.split(separator) if separator else [text]
        kept = len(parts[-1]) - (len(separator or " ") - 1 if piece is not None else 0)
        held, parts[-1] = parts[-1][max(0, kept) :], parts[-1][: max(0, kept)]
        marked = []
        for number, part in enumerate(parts):
            begins = begins or number > 0
            if part:
                marked += [BOUNDARY, part] if begins else [part]
                begins = False
        yield "".join(marked)


def decode(blocks: Iterator[bytes], max_bytes: int | None) -> Iterator[str]:
    """The text of UTF-8 in pieces, whose borders may lie inside a character."""
    held, size = b"", 0
    for block in blocks:
        size += len(block)
        data = held + block if held else block
        text, used = codecs.utf_8_decode(data, "replace", False)
        held = data[used:]
        yield text
    # Where max_bytes cut a character in two, its first half is no character of the text.
    if held and size != max_bytes:
        yield held.decode("utf-8", "replace")


def cut_at_borders(pieces: Iterator[str]) -> Iterator[str]:
    """The same text in other pieces, which can be normalised one by one."""
    held = ""
    for piece in pieces:
        # A border inside what was held is one no more than it was.
        place = border(held[-1:] + piece)
        if place:
            place += len(held) - len(held[-1:])
            text = held + piece
            yield text[:place]
            held = text[place:]
        else:
            held += piece
        if len(held) > LONGEST:
            raise InputError(
                f"data.normalize: {len(held):,} characters with no border between them, but"
                " marks alone; data.normalize=null reads them as they are"
            )
    yield held


def find_alphabet(pieces: Iterator[str], charset: Charset, min_count: int = 1) -> Charset:
    """The charset of a text read as another one reads it: what occurs often enough."""
    if min_count == 1:
        found = find_characters(pieces)
    else:
        counts = np.zeros(CODE_POINTS, np.int64)
        for piece in pieces:
            part = np.bincount(to_points(piece))
            counts[: len(part)] += part
        found = "".join(map(chr, np.flatnonzero(counts >= min_count)))
    return Charset(found, **charset.reading)


def find_characters(pieces: Iterator[str]) -> str:
    """The characters of a text, each once."""
    known = b""
    seen = np.zeros(CODE_POINTS, bool)
    for piece in pieces:
        if piece.isascii():
            known += bytes(set(piece.encode("ascii").translate(None, known)))
            continue
        points = to_points(piece)
        if not np.take(seen, points, mode="clip").all():  # faster than to write them all
            seen[points] = True
    seen[list(known)] = True
    return "".join(map(chr, np.flatnonzero(seen)))


def encode(
    files: list[Path],
    max_bytes: int | None,
    charset: Charset,
    document: str | None,
    min_count: int,
    find: bool,
    folder: Path,
) -> None:
    """Write the encoded text of files into a folder, whole or not at all.

    Args:
        find: whether the alphabet is that of the text, and not the charset's.
    """
    if find:
        pieces = read_text(files, max_bytes, charset, document)
        charset = find_alphabet(pieces, charset, min_count)
    size = unknown = checksum = 0
    scratch = folder.with_suffix(".part")  # of this process alone, which holds the lock
    shutil.rmtree(scratch, ignore_errors=True)  # left by one that was killed
    try:
        scratch.mkdir()
        with open(scratch / "tokens.bin", "wb") as f:
            for piece in read_text(files, max_bytes, charset, document, "encoding"):
                indices = charset.indices(piece)
                size += len(indices)
                unknown += int(np.count_nonzero(indices == 0))  # faster than those that are not
                checksum = zlib.crc32(indices, checksum)
                f.write(indices)
        meta = {
            "text": describe(files),
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


def read_cached(folder: Path, sha256: str, verify: bool = True) -> Corpus | None:
    """The encoded text in a folder; None where there is none, or a torn one.

    All of it is read for its CRC-32, unless it was written just now.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        expected, checksum = meta.pop("crc32"), 0
        file = folder / "tokens.bin"
        size, dtype = meta["size"], np.dtype(meta["dtype"])
        if file.stat().st_size != size * dtype.itemsize:
            return None
        if verify:
            with progress([file], "checking") as update, open(file, "rb") as f:
                while block := f.read(BLOCK):
                    checksum = zlib.crc32(block, checksum)
                    update(len(block))
            if zlib.crc32(json.dumps(meta).encode(), checksum) != expected:
                return None
        # A map that could be written into would count as memory in use, all of it.
        tokens = np.memmap(file, dtype, "r", shape=(size,)) if size else np.zeros(0, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not writable
            tensor = torch.from_numpy(tokens)
        return Corpus(tensor, Charset(**meta["charset"]), sha256, meta["unknown"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def stamps(files: list[Path]) -> list[tuple[int, int]]:
    """What changes with files' contents: their sizes and times."""
    stats = [file.stat() for file in files if file.exists()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def describe(files: list[Path]) -> str:
    """A file's name, or how many there are."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def show(root: Path) -> list[str]:
    """A line for each encoded text in the cache, the newest first, and their size together."""
    lines, total = [], 0
    folders = [folder for folder in root.glob("*-*") if folder.is_dir()]
    for folder in sorted(folders, key=lambda folder: -folder.stat().st_mtime):
        size = sum(file.stat().st_size for file in folder.iterdir())
        total += size
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(folder.stat().st_mtime))
        try:
            meta = json.loads((folder / "meta.json").read_text("utf-8"))
            about = f"{meta['size']:,} characters of {meta['text']}"
        except (OSError, ValueError, KeyError, TypeError):
            about = "not whole; written at this moment, or left by a process that was killed"
        lines.append(f"{day}  {size / 1e6:10,.1f} MB  {about}")
    return [*lines, f"{len(lines)} texts, {total / 1e6:,.1f} MB in {root}"]


def clear(root: Path) -> None:
    """Remove every encoded text but those that a process writes at this moment."""
    for folder in {path.with_suffix("") for path in root.glob("*-*")}:
        lock = filelock.FileLock(folder.with_suffix(".lock"), timeout=0)
        with contextlib.suppress(filelock.Timeout), lock:
            for path in (folder, folder.with_suffix(".part")):
                shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """List the cache, or clear it, as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m charrnn.data.corpus",
        description="The cache of encoded texts: list or clear it.",
    )
    parser.add_argument("command", nargs="?", choices=["list", "clear"], default="list")
    parser.add_argument("--cache-dir", help="as data.cache_dir; by default the user's cache folder")
    args = parser.parse_args()
    root = cache(args.cache_dir)
    if args.command == "clear":
        clear(root)
    print(*map(escape_control, show(root)), sep="\n")


if __name__ == "__main__":
    main()
