"""The text of files as a stream of chunks: newlines, documents and Unicode normalization.

No chunk is larger than ``files.BLOCK`` bytes, except where normalization needs context, so that
a corpus never has to fit in memory.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from charrnn.data.charset import BOUNDARY, UNKNOWN, Charset
from charrnn.data.decode import AUTO, decode, translate_newlines
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
    encoding: str = AUTO,
) -> Iterator[str]:
    """Read files as one text, in chunks preprocessed as a charset requires.

    Args:
        max_bytes: read at most this many bytes, up to the last complete character.
        document: as in :func:`charrnn.data.corpus.open_corpus`.
        description: label of the progress bar.
        encoding: as in :func:`charrnn.data.decode.decode`; not used with unit="byte".

    Raises:
        InputError: a file cannot be read, is not text, or cannot be normalized in bounded memory.
    """
    by_file = document == "file"
    with progress_bar(files, description) as update:
        if charset.unit == "byte":
            texts = [read_bytes(files, max_bytes, progress=update)]
        else:
            decoded = decode(files, max_bytes, encoding, by_file, update)
            groups = itertools.groupby(decoded, itemgetter(0) if by_file else lambda _: 0)
            texts = (map(itemgetter(1), group) for _, group in groups)
        if charset.newlines == "universal":
            texts = map(translate_newlines, texts)
        if document is not None:
            separator = None if by_file else document
            texts = (mark_documents(text, separator) for text in texts)
        chunks = itertools.chain.from_iterable(texts)
        if charset.normalize is not None:
            chunks = split_for_normalization(chunks)
        yield from map(charset.preprocess, chunks)


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


def unescape(text: str) -> str:
    r"""Read a text as typed in one line: \n is a newline, \t a tab, \\n a backslash and an n."""
    escapes = {"n": "\n", "t": "\t"}
    return re.sub(r"(\\?)\\([nt])", lambda m: f"\\{m[2]}" if m[1] else escapes[m[2]], text)
