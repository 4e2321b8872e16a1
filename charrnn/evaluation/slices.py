"""Slices of a file as code points, and back: any bytes, in bounded memory.

A file is cut into slices of nearly equal size, one for each stream of a compression. With
unit="char" a slice is UTF-8 in which a byte that cannot be decoded is a lone surrogate (PEP 383),
so that every sequence of bytes is a text and the text gives the bytes again.

N characters.
"""

import codecs
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from charrnn.data.charset import to_points, to_text

CHUNK = 1 << 16
"""Bytes per read of a slice."""


@dataclass(frozen=True)
class Source:
    """What is known of a file before it is compressed.

    Attributes:
        size: in bytes.
        sha256: of its bytes.
        crlf: whether every line ends with CR LF, and no CR or LF occurs apart from that.
    """

    size: int
    sha256: str
    crlf: bool


def survey(file: BinaryIO) -> Source:
    """Read a file once."""
    digest, size, pairs, ends, last = hashlib.sha256(), 0, 0, 0, b""
    while block := file.read(CHUNK):
        digest.update(block)
        size += len(block)
        pairs += (last + block).count(b"\r\n")
        ends += block.count(b"\r") + block.count(b"\n")
        last = block[-1:] if block.endswith(b"\r") else b""
    return Source(size, digest.hexdigest(), 0 < 2 * pairs == ends)


def cut(file: BinaryIO, source: Source, rows: int, in_bytes: bool) -> list[int]:
    """Return the positions at which slices begin, and the size of the file.

    No position lies inside a character in UTF-8 or between CR and LF.
    """
    positions = [source.size * i // rows for i in range(rows + 1)]
    for i in range(1, rows) if not in_bytes else ():
        file.seek(positions[i] - 1)
        around = file.read(4)
        inside = [byte & 0xC0 == 0x80 for byte in around[1:]] + [False]
        positions[i] += inside.index(False) if around[:2] != b"\r\n" else 1
        positions[i] = max(positions[i - 1 : i + 1])
    return positions


class SliceReader:
    """Reads the code points of a slice, or its bytes with unit="byte".

    Args:
        file: shared by the readers.
        begin, end: positions of the slice.
        crlf: read CR LF as LF.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int, in_bytes: bool, crlf: bool):
        self.file, self.position, self.end = file, begin, end
        self.decoder = decoder(in_bytes, crlf)
        self.held = np.zeros(0, np.uint32)

    def read(self, count: int) -> np.ndarray:
        """Return the next points (N,) uint32, N = count but at the end of the slice."""
        parts, held = [self.held], len(self.held)
        while held < count and self.position < self.end:
            self.file.seek(self.position)
            block = self.file.read(min(CHUNK, self.end - self.position))
            # A file that was shortened meanwhile ends here.
            self.position = self.position + len(block) if block else self.end
            parts.append(to_points(self.decoder.decode(block, self.position == self.end)))
            held += len(parts[-1])
        points = np.concatenate(parts)
        self.held = points[count:]
        return points[:count]

    def count(self) -> int:
        """Return how many points there are, and begin again."""
        begin, total = self.position, 0
        while points := len(self.read(CHUNK)):
            total += points
        self.position = begin
        self.decoder.reset()
        return total


def decoder(in_bytes: bool, crlf: bool) -> codecs.IncrementalDecoder:
    """Return an incremental decoder of slices."""
    name, errors = ("latin-1", "strict") if in_bytes else ("utf-8", "surrogateescape")
    found = codecs.getincrementaldecoder(name)(errors)
    return io.IncrementalNewlineDecoder(found, True) if crlf else found


class SliceWriter:
    """Writes code points to the slices of a file.

    Args:
        file: the file, empty.
        sizes: of the slices, in bytes.
    """

    def __init__(self, file: BinaryIO, sizes: Sequence[int], in_bytes: bool, crlf: bool):
        self.file, self.in_bytes, self.crlf = file, in_bytes, crlf
        self.ends = np.cumsum(sizes).tolist()
        self.positions = [0, *self.ends[:-1]]

    def write(self, points: np.ndarray, counts: np.ndarray) -> None:
        """Write the next points (N, B), ``counts`` (B,) of each slice.

        Raises:
            UnicodeError: they are no text of these slices.
        """
        for i, count in enumerate(counts.tolist()):
            text = to_text(points[:count, i].copy())
            if self.in_bytes:
                data = text.encode("latin-1")
            else:
                text = text.replace("\n", "\r\n") if self.crlf else text
                data = text.encode("utf-8", "surrogateescape")
            self.file.seek(self.positions[i])
            self.positions[i] += len(data)
            if self.positions[i] > self.ends[i]:
                raise UnicodeError("a slice is longer than it should be")
            self.file.write(data)
