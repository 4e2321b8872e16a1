"""A range coder: intervals of whole numbers become bytes, and bytes intervals again.

G. N. N. Martin, "Range encoding: an algorithm for removing redundancy from a digitised message",
1979. All arithmetic is on 64 bits. ``charrnn/gru/csrc/range.h`` computes the same bytes.
"""

ALL = 2**64
SMALLEST = 2**56
"""The smallest range: below it a byte is shifted out, so totals may go up to 2^48."""


class Encoder:
    """Encodes intervals into bytes."""

    def __init__(self):
        self.low, self.range, self.bytes = 0, ALL - 1, bytearray()

    def encode(self, start: int, size: int, total: int) -> None:
        """Encode the interval [start, start + size) of [0, total)."""
        unit = self.range // total
        self._add(unit * start)
        self.range = unit * size
        while self.range < SMALLEST:
            self.bytes.append(self.low >> 56)
            self.low, self.range = self.low << 8 & ALL - 1, self.range << 8

    def finish(self) -> bytes:
        """Return the bytes since the last call, the shortest that need no more than zeros after."""
        self._add(SMALLEST - 1)
        code = bytes([*self.bytes, self.low >> 56]).rstrip(b"\0")
        self.__init__()
        return code

    def _add(self, amount: int) -> None:
        self.low += amount
        if self.low >= ALL:  # a carry into the bytes
            self.low -= ALL
            position = len(self.bytes) - 1
            while self.bytes[position] == 255:
                self.bytes[position] = 0
                position -= 1
            self.bytes[position] += 1


class Decoder:
    """Decodes the intervals of a code, which zeros follow."""

    def __init__(self, code: bytes):
        self.code, self.position, self.range = code, 8, ALL - 1
        self.rest = int.from_bytes(code[:8].ljust(8, b"\0"), "big")

    def value(self, total: int) -> int:
        """Return a number of the coded interval of [0, total)."""
        self.unit = self.range // total
        return min(self.rest // self.unit, total - 1)

    def remove(self, start: int, size: int) -> None:
        """Go on to the next interval; the current one is [start, start + size)."""
        self.rest -= self.unit * start
        self.range = self.unit * size
        while self.range < SMALLEST:
            byte = self.code[self.position] if self.position < len(self.code) else 0
            self.rest, self.range = (self.rest << 8 & ALL - 1) | byte, self.range << 8
            self.position += 1
