r"""The file of a compressed text: a header, blocks of codes, and a checksum of all that.

"charrnn archive 1\n"
4 bytes, little-endian, and the header of that size: JSON, deflated
for each block: the size of each stream's code, a byte for 7 bits, and then the codes
32 bytes, the SHA-256 of everything before them
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import InputError

MAGIC = b"charrnn archive 1\n"
LARGEST_HEADER = 1 << 20
"""Bytes of a header's JSON: 8,000 streams and more have room."""
MAX_STREAMS, MAX_THREADS = 4096, 1024
SEQ_LEN = 20
"""T of a dynamic compression, of which a block has a multiple."""
BLOCK, LARGEST_BLOCK = 60_000, 8_000_000
"""Characters of a block, of each stream and of all. A code ends with a block: some three more
bytes."""


def block_size(rows: int) -> int:
    """Return the characters of each stream in a block, for B = ``rows`` streams."""
    return min(BLOCK, LARGEST_BLOCK // rows // SEQ_LEN * SEQ_LEN)


class Writer:
    """Writes an archive to a file, which is at its start."""

    def __init__(self, file: BinaryIO, header: dict):
        self.file, self.digest, self.size = file, hashlib.sha256(), 0
        packed = zlib.compress(json.dumps(header).encode(), 9)
        self._write(MAGIC + len(packed).to_bytes(4, "little") + packed)

    def block(self, codes: list[bytes]) -> None:
        """Write the codes of a block, one for each stream."""
        self._write(b"".join([*(to_varint(len(code)) for code in codes), *codes]))

    def close(self) -> None:
        """Write the checksum."""
        self._write(self.digest.digest())

    def _write(self, data: bytes) -> None:
        self.digest.update(data)
        self.file.write(data)
        self.size += len(data)


class Reader:
    """Reads an archive that is complete.

    Args:
        file: the archive.
        path: its name, for errors.

    Attributes:
        header: what it says of itself. Its values have the right types.

    Raises:
        InputError: it is no archive, or damaged.
    """

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path}: no archive of charrnn compress")
        self._verify()
        file.seek(len(MAGIC))
        packed = file.read(int.from_bytes(file.read(4), "little"))
        try:
            self.header = json.loads(zlib.decompressobj().decompress(packed, LARGEST_HEADER))
            check_header(self.header)
        except (
            ArithmeticError, LookupError, RecursionError, TypeError, ValueError, zlib.error,
        ) as error:  # fmt: skip
            raise self.damaged() from error
        self.rows = len(self.header["slices"])
        most, size = max(n for _, n in self.header["slices"]), block_size(self.rows)
        if -(-most // size) * self.rows > self.size:  # each code has its length, if nothing else
            raise self.damaged()

    def blocks(self) -> Iterator[list[bytes]]:
        """Iterate over the codes of blocks; there are as many as the header's slices need."""
        while True:
            sizes = [self._varint() for _ in range(self.rows)]
            if sum(sizes) > self.size:
                raise self.damaged()
            yield [self.file.read(size) for size in sizes]

    def damaged(self) -> InputError:
        """The error of an archive whose content is not what was written."""
        return InputError(f"{self.path}: the archive is damaged; nothing was written")

    def _verify(self) -> None:
        """Compare the checksum."""
        self.size = self.file.seek(0, 2)
        self.file.seek(0)
        digest, left = hashlib.sha256(), self.size - 32
        while left > 0:
            block = self.file.read(min(left, 1 << 20))
            digest.update(block)
            left -= len(block)
        if left or self.file.read() != digest.digest():
            raise self.damaged()

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.file.read(1)
            if not byte or shift > 56:
                raise self.damaged()
            value |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                return value


def check_header(header: dict) -> None:
    """Raise TypeError, ValueError or LookupError unless a header has what is read of it."""
    for key in ("model", "sha256", "backend", "self_test", "description"):
        if not isinstance(header[key], str):
            raise TypeError(key)
    if not isinstance(header["crlf"], bool):
        raise TypeError("crlf")
    slices, dynamic = header["slices"], header["dynamic"]
    numbers = [number for pair in slices for number in pair] + [header["size"], header["threads"]]
    if not all(type(number) is int and 0 <= number < 1 << 60 for number in numbers):
        raise TypeError("slices")
    if not all(characters <= size <= 4 * characters for size, characters in slices):  # in UTF-8
        raise ValueError("slices")
    if sum(size for size, _ in slices) != header["size"] or not 1 <= len(slices) <= MAX_STREAMS:
        raise ValueError("slices")
    if not 1 <= header["threads"] <= MAX_THREADS:
        raise ValueError("threads")
    rates = [] if dynamic is None else [dynamic["lr"], dynamic["decay"]]
    if not all(type(rate) in (int, float) and 0 <= rate < 1e38 for rate in rates):
        raise ValueError("dynamic")


def to_varint(value: int) -> bytes:
    """Return a number as bytes of 7 bits, the lowest first; all but the last have the high bit."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])
