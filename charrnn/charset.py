"""Charset: the sorted alphabet of a corpus, and text to indices and back.

Index 0 is U+FFFD and stands for every character outside the alphabet; then come the characters
in the order of their code points. With unit="byte" the characters are bytes, written as the
code points 0 to 255.
"""

import codecs
from collections.abc import Iterable

import numpy as np

from charrnn.errors import check

UNKNOWN = "\ufffd"
UNITS = ("char", "byte")
CODE_POINTS = 0x110000


class Charset:
    """An alphabet. Its length is V, the unknown character included.

    Args:
        characters: what belongs to the alphabet, in any order, repeated or not; a str.
        unit: "char" for Unicode code points, "byte" for bytes.
    """

    def __init__(self, characters: Iterable[str] = "", unit: str = "char"):
        check("unit", unit, unit in UNITS, " or ".join(UNITS))
        self.unit = unit
        # In bytes there is no U+FFFD, so that no byte is taken for the unknown.
        self.alphabet = "".join(sorted(set(characters) - {UNKNOWN}))
        points = to_points(UNKNOWN + self.alphabet)
        limit = 256 if unit == "byte" else CODE_POINTS
        check("characters", self.alphabet[-1:], points[1:].max(initial=0) < limit, "bytes 0 to 255")
        self._points = points
        # From a code point (or byte) to its index.
        self.index = np.zeros(limit, np.min_scalar_type(len(self) - 1))
        self.index[points[1:]] = np.arange(1, len(points))

    @classmethod
    def from_text(cls, text: str | bytes, unit: str = "char") -> "Charset":
        """The alphabet of a text."""
        return cls(to_characters(text, unit), unit)

    def __len__(self) -> int:
        return len(self._points)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Charset):
            return NotImplemented
        return (self.unit, self.alphabet) == (other.unit, other.alphabet)

    def __hash__(self) -> int:
        return hash((self.unit, self.alphabet))

    def __repr__(self) -> str:
        return f"Charset({self.alphabet!r}, unit={self.unit!r})"

    def encode(self, text: str | bytes) -> np.ndarray:
        """Indices of a text, (N,) of the smallest unsigned type that holds V - 1.

        With unit="byte" a str is taken as UTF-8.
        """
        if self.unit == "char":
            return self.index[to_points(text)]
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")
        return self.index[np.frombuffer(text, np.uint8)]

    def decode(self, indices: Iterable[int]) -> str:
        """The text of indices. With unit="byte", undecodable bytes become U+FFFD."""
        decoder = self.decoder()
        return decoder(np.fromiter(indices, np.int64)) + decoder(None)

    def decoder(self):
        """A function from indices, one or (N,) of them, to the text that they complete.

        A character is complete at once; the bytes of one are held back until it is. Called with
        None it returns what is left over.
        """
        if self.unit == "char":
            return lambda indices: "" if indices is None else to_text(self._points[indices])
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def step(indices):
            if indices is None:
                return decoder.decode(b"", True)
            indices = np.atleast_1d(indices)
            known, *others = np.split(
                self._points[indices].astype(np.uint8), *np.nonzero(indices == 0)
            )
            text = decoder.decode(known.tobytes())
            for part in others:  # each begins with an unknown one
                text += decoder.decode(b"", True) + UNKNOWN + decoder.decode(part[1:].tobytes())
            return text

        return step

    def unknown(self, text: str | bytes) -> str:
        """The characters of a text that are not in the alphabet, each once, in their order."""
        missing = set(to_characters(text, self.unit)) - set(self.alphabet) - {UNKNOWN}
        return "".join(dict.fromkeys(c for c in to_characters(text, self.unit) if c in missing))

    def state_dict(self) -> dict[str, str]:
        """Plain values that make the same charset: Charset(**state)."""
        return {"characters": self.alphabet, "unit": self.unit}


def to_characters(text: str | bytes, unit: str) -> str:
    """A text as the characters of a unit: itself, or its bytes as code points 0 to 255."""
    if unit == "char":
        return text
    return (text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text).decode(
        "latin-1"
    )


def to_points(text: str) -> np.ndarray:
    """The code points of a str, (N,) uint32. Lone surrogates pass."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def to_text(points: np.ndarray) -> str:
    """The str of code points, uint32: what ``to_points`` was made from."""
    return points.tobytes().decode("utf-32-le", "surrogatepass")
