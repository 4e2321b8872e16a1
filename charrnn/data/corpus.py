"""Corpus: text files as one array of indices, memory-mapped from a cache keyed by content.

A new text is read in chunks, three times: to hash it, to find its alphabet and to encode it. A
cached text is read once, to hash it, and its encoded form once, to verify its checksum.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from charrnn.data import cache
from charrnn.data.charset import CODE_POINTS, Charset, to_points
from charrnn.data.decode import AUTO, is_encoding
from charrnn.data.files import DECOMPRESS, progress_bar, read_bytes
from charrnn.data.text import read_text
from charrnn.errors import InputError, check


@dataclass(frozen=True)
class Corpus:
    """An encoded text of N characters."""

    tokens: Tensor
    """(N,) indices, uint8, uint16 or uint32, memory-mapped; must not be written to."""
    charset: Charset
    sha256: str
    """Hash of the concatenated bytes of the files, as stored (before decompression)."""
    unknown: int
    """Number of characters that are outside the alphabet, or U+FFFD."""


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
    newlines: str = "universal",
    encoding: str = AUTO,
) -> Corpus:
    """Encode files, read as one text, or find them encoded in the cache.

    Undecodable bytes become U+FFFD; with unit="byte", bytes are read as they are. Files named .gz,
    .xz, .bz2, .zst and .zip are decompressed.

    Args:
        unit, normalize, lowercase: as in :class:`charrnn.Charset`.
        max_bytes: read at most this many bytes, up to the last complete character; None reads all.
        cache_dir: folder of the cache; None selects the user's cache folder.
        document: "file" makes each file a document; any other string separates documents; None
            reads one text without documents. Each document that is not empty then starts with
            ``charrnn.data.charset.BOUNDARY``, U+FFFF, and separators are removed.
        min_count: characters that occur less often are left out of the alphabet.
        charset: the alphabet and how text is preprocessed, instead of the settings above (except
            ``document`` and ``encoding``); None finds the alphabet of the text.
        newlines: as in :class:`charrnn.Charset`; "keep" with unit="byte".
        encoding: "auto" is that of each file's byte order mark, which is dropped, else UTF-8. A
            name is one of Python's codecs.

    Raises:
        InputError: a file cannot be read or is not text, the text has fewer than two characters,
            or the cache folder cannot be written.
    """
    check("max_bytes", max_bytes, max_bytes is None or max_bytes >= 2, "at least 2, or null")
    check("min_count", min_count, min_count >= 1, "a whole number, at least 1")
    check("document", document, document != "", "file, or what separates documents, or null")
    check("encoding", encoding, is_encoding(encoding), "auto, or a codec of Python, as in latin-1")
    if charset is None:
        newlines = "keep" if unit == "byte" else newlines
        empty = Charset("", unit, normalize, lowercase, document is not None, newlines)
    else:
        empty = charset
    is_read = empty.unit == "char" or encoding in (AUTO, "utf-8")
    check("encoding", encoding, is_read, "auto with unit=byte")
    before = file_stamps(files)
    sha256 = hash_files(files, max_bytes)
    # max_bytes is part of the key: the same bytes may end in half a character that was cut there
    # (dropped), or that the file itself ends with (U+FFFD).
    # Where a file begins matters to its documents and its byte order mark.
    separate = document == "file" or (empty.unit == "char" and encoding != "utf-8")
    sizes = [size for size, _ in before] if separate and len(files) > 1 else None
    settings = [max_bytes, min_count, charset and charset.alphabet, empty.options, document,
                [f.suffix for f in files if f.suffix in DECOMPRESS],
                None if empty.unit == "byte" else encoding, sizes]  # fmt: skip
    root = cache.cache_folder(cache_dir)
    folder = cache.entry_folder(root, sha256, settings)
    entry = cache.read_entry(folder)
    try:
        if entry is None:
            root.mkdir(parents=True, exist_ok=True)
            with cache.lock_entry(folder):
                entry = cache.read_entry(folder)  # another process may have written it meanwhile
                if entry is None:
                    alphabet = charset or find_alphabet(
                        read_text(files, max_bytes, empty, document, encoding=encoding),
                        empty,
                        min_count,
                    )
                    encode(files, max_bytes, alphabet, document, folder, encoding)
                    if file_stamps(files) != before:
                        shutil.rmtree(folder)
                        raise InputError(
                            f"{describe(files)}: changed while it was read; start again,"
                            " with a copy if it is still being written"
                        )
                    entry = cache.read_entry(folder, verify=False)
    except OSError as error:
        raise InputError(
            f"data.cache_dir: cannot write {root} ({error.strerror}); name another folder"
        ) from error
    if entry is None:
        raise InputError(f"data.cache_dir: {root} does not return what was written to it")
    if len(entry.tokens) < 2:
        shutil.rmtree(folder)
        raise InputError(
            f"{describe(files)}: has {len(entry.tokens)} characters; two or more are needed"
        )
    return Corpus(entry.tokens, entry.charset, sha256, entry.unknown)


def encode(
    files: list[Path],
    max_bytes: int | None,
    charset: Charset,
    document: str | None,
    folder: Path,
    encoding: str,
) -> None:
    """Encode the text of files into an entry of the cache."""
    chunks = read_text(files, max_bytes, charset, document, "encoding", encoding)
    cache.write_entry(folder, describe(files), charset, map(charset.lookup, chunks))


def find_alphabet(chunks: Iterator[str], charset: Charset, min_count: int = 1) -> Charset:
    """Return the charset of the characters that occur at least ``min_count`` times in a text.

    Args:
        chunks: the text, preprocessed.
        charset: provides the options of the result.
    """
    if min_count == 1:
        found = find_characters(chunks)
    else:
        counts = np.zeros(CODE_POINTS, np.int64)
        for chunk in chunks:
            part = np.bincount(to_points(chunk))
            counts[: len(part)] += part
        found = "".join(map(chr, np.flatnonzero(counts >= min_count)))
    return Charset(found, **charset.options)


def find_characters(chunks: Iterator[str]) -> str:
    """Return the distinct characters of a text, sorted."""
    known = b""
    seen = np.zeros(CODE_POINTS, bool)
    for chunk in chunks:
        if chunk.isascii():
            known += bytes(set(chunk.encode("ascii").translate(None, known)))
            continue
        points = to_points(chunk)
        if not np.take(seen, points, mode="clip").all():  # a gather is faster than a scatter
            seen[points] = True
    seen[list(known)] = True
    return "".join(map(chr, np.flatnonzero(seen)))


def hash_files(files: list[Path], max_bytes: int | None) -> str:
    """Return the SHA-256 of the concatenated bytes of files, as stored."""
    digest = hashlib.sha256()
    with progress_bar(files, "reading") as update:
        # max_bytes counts decompressed bytes.
        limit = None if any(file.suffix in DECOMPRESS for file in files) else max_bytes
        for block in read_bytes(files, limit, decompress=False, progress=update):
            digest.update(block)
    return digest.hexdigest()


def file_stamps(files: list[Path]) -> list[tuple[int, int]]:
    """Return the sizes and modification times of files, to detect that one was changed."""
    stats = [file.stat() for file in files if file.exists()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def describe(files: list[Path]) -> str:
    """Format a list of files for a message: the first, and how many more there are."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
