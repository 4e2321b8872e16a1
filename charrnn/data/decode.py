"""Bytes of files to text: encodings, byte order marks and newlines, in blocks."""

import codecs
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from charrnn.data.files import read_bytes
from charrnn.errors import InputError

AUTO = "auto"
"""The encoding of a file's byte order mark, else UTF-8."""
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by their byte order mark (The Unicode Standard, section 23.8), which they drop."""
HEAD = 1 << 16
"""Bytes at a file's start that decide whether it is text."""
FEW = 8
"""Undecodable bytes among them that are tolerated, whatever the length of the file."""


def decode(
    files: list[Path],
    max_bytes: int | None = None,
    encoding: str = AUTO,
    separate: bool = False,
    progress: Callable[[int], object] = lambda bytes_read: None,
) -> Iterator[tuple[int, str]]:
    """Decode files in blocks; undecodable bytes become U+FFFD.

    Args:
        max_bytes: read at most this many bytes of all files, up to the last complete character.
        encoding: ``AUTO``, or a name that Python knows; then nothing is refused.
        separate: whether a character may not begin in one file and end in the next, as in the
            pieces of a file in UTF-8.
        progress: as in :func:`charrnn.data.files.read_bytes`.

    Yields:
        The number of a file in the list, and text of it.

    Raises:
        InputError: a file cannot be read, or is not text, with ``AUTO``.
    """
    left = float("inf") if max_bytes is None else max_bytes
    before, decoder, number = "", None, 0
    for number, file in enumerate(files):
        if not left:
            return
        name = detect_encoding(file) if encoding == AUTO else encoding
        if decoder is None or separate or {before, name} != {"utf-8"}:
            if decoder is not None:
                yield number - 1, decoder.decode(b"", True)
            decoder = codecs.getincrementaldecoder(name)("replace")
        before = name
        for block in read_bytes([file], left, progress=progress):
            left -= len(block)
            yield number, decoder.decode(block)
    # If max_bytes cut a character in two, its first half is not part of the text.
    if left and decoder is not None:
        yield number, decoder.decode(b"", True)


def detect_encoding(file: Path) -> str:
    """Return the encoding of a file's byte order mark; "utf-8" if there is none.

    Raises:
        InputError: the file cannot be read, or its first ``HEAD`` bytes are not text: more than
            ``FEW`` of them, and more than one in a thousand, are NUL or cannot be decoded.
    """
    head = b"".join(read_bytes([file], HEAD))
    name = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")
    text = head.decode(name, "ignore")
    bad = text.count("\0")
    if len(text) < len(head):  # otherwise all is ASCII
        bad += len(head.decode(name, "replace")) - len(text)
    if bad > max(FEW, len(head) // 1000):
        raise InputError(
            f"{file}: is not text in {name.removesuffix('-sig').upper()} ({bad:,} of its first"
            f" {len(head):,} bytes cannot be read); data.unit=byte reads any file,"
            " data.encoding=latin-1 another encoding"
        )
    return name


def is_encoding(name: str) -> bool:
    """Whether a name is ``AUTO`` or that of a text encoding that Python can read in blocks."""
    try:
        if name != AUTO:
            b"text".decode(name, "replace")
            codecs.getincrementaldecoder(name)
        return True
    except (LookupError, ValueError):
        return False


def translate_newlines(chunks: Iterator[str]) -> Iterator[str]:
    r"""Replace \r\n and \r by \n, also where a chunk ends between the two."""
    decoder = io.IncrementalNewlineDecoder(None, True)
    yield from map(decoder.decode, chunks)
    yield decoder.decode("", True)
