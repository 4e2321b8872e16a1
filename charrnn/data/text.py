"""The text of files as a stream of chunks: decoding, documents and Unicode normalization.

No chunk is larger than ``files.BLOCK`` bytes, except where normalization needs context, so that
a corpus never has to fit in memory.
"""

import codecs
import itertools
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from charrnn.data.charset import BOUNDARY, UNKNOWN, Charset
from charrnn.data.files import progress_bar, read_bytes
from charrnn.errors import InputError

LONGEST = 1 << 20
"""Maximum number of characters without a position where text can be split for normalization."""


def read_text(
    files: list[Path],
    max_bytes: int | None,
    charset: Charset,
    document: str | None = None,
    description: str = "finding the alphabet",
) -> Iterator[str]:
    """Read files as one text, in chunks preprocessed as a charset requires.

    Args:
        max_bytes: read at most this many bytes, up to the last complete character.
        document: as in :func:`charrnn.data.corpus.open_corpus`.
        description: label of the progress bar.

    Raises:
        InputError: a file cannot be read, or cannot be normalized in bounded memory.
    """
    with progress_bar(files, description) as update:
        if document == "file":
            chunks = itertools.chain.from_iterable(read_documents(files, max_bytes, update))
        else:
            chunks = read_bytes(files, max_bytes, progress=update)
            if charset.unit == "char":
                chunks = decode(chunks, max_bytes)
            if document is not None:
                chunks = mark_documents(chunks, document)
        if charset.normalize is not None:
            chunks = split_for_normalization(chunks)
        yield from map(charset.preprocess, chunks)


def read_documents(
    files: list[Path], max_bytes: int | None, update: Callable[[int], object]
) -> Iterator[Iterator[str]]:
    """Read each file as one document, in chunks; ``max_bytes`` counts all files."""
    for file in files:
        blocks = read_bytes([file], max_bytes, progress=update)
        if max_bytes is not None:
            blocks = list(blocks)
        yield mark_documents(decode(blocks, max_bytes), None)
        if max_bytes is not None:
            max_bytes -= sum(map(len, blocks))


def mark_documents(chunks: Iterator[str], separator: str | None) -> Iterator[str]:
    """Insert ``BOUNDARY`` before every document that is not empty, and remove separators.

    Args:
        separator: text between two documents; None if there is one document.
    """
    at_start, held = True, ""
    # The end of a chunk may be the beginning of a separator, so it is held back until the next.
    for chunk in itertools.chain(chunks, [None]):
        text = (held + (chunk or "")).replace(BOUNDARY, UNKNOWN)
        parts = text.split(separator) if separator else [text]
        kept = len(parts[-1]) - (len(separator or " ") - 1 if chunk is not None else 0)
        held, parts[-1] = parts[-1][max(0, kept) :], parts[-1][: max(0, kept)]
        marked = []
        for number, part in enumerate(parts):
            at_start = at_start or number > 0
            if part:
                marked += [BOUNDARY, part] if at_start else [part]
                at_start = False
        yield "".join(marked)


def decode(blocks: Iterator[bytes], max_bytes: int | None) -> Iterator[str]:
    """Decode UTF-8 in blocks that may end inside a character; bad bytes become U+FFFD."""
    held, size = b"", 0
    for block in blocks:
        size += len(block)
        data = held + block if held else block
        text, used = codecs.utf_8_decode(data, "replace", False)
        held = data[used:]
        yield text
    # If max_bytes cut a character in two, its first half is not part of the text.
    if held and size != max_bytes:
        yield held.decode("utf-8", "replace")


def split_for_normalization(chunks: Iterator[str]) -> Iterator[str]:
    """Yield the same text in chunks that can be normalized independently.

    Raises:
        InputError: ``LONGEST`` characters without a position to split at.
    """
    held = ""
    for chunk in chunks:
        # Positions inside the held text were rejected before, except after its last character.
        position = last_split(held[-1:] + chunk)
        if position:
            position += len(held) - len(held[-1:])
            text = held + chunk
            yield text[:position]
            held = text[position:]
        else:
            held += chunk
        if len(held) > LONGEST:
            raise InputError(
                f"data.normalize: {len(held):,} characters of combining marks without a base"
                " character; data.normalize=null reads them unchanged"
            )
    yield held


def last_split(text: str) -> int:
    """Return the last position at which both parts of a text can be normalized separately.

    Such a position is before a character that no normalization form composes with its
    predecessor: its full decomposition starts with neither a mark nor a vowel or final consonant
    of Hangul. The position after the first character is the first considered; 0 if there is none.
    """
    for position in range(len(text) - 1, 0, -1):
        first = unicodedata.normalize("NFKD", text[position])[0]
        if unicodedata.category(first)[0] != "M" and not "\u1160" <= first <= "\u11ff":
            return position
    return 0
