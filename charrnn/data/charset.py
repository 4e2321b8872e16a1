"""Charset: the sorted alphabet of a corpus, and the mapping between text and indices.

Index 0 is U+FFFD and stands for every character outside the alphabet; the characters follow,
sorted by code point. With unit="byte" the characters are bytes, written as the code points 0 to
255. V vocabulary size, N characters.
"""

import codecs
import unicodedata
from collections.abc import Iterable

import numpy as np

from charrnn.errors import check

UNKNOWN = "\ufffd"
BOUNDARY = "\uffff"
"""The start of a document: a code point that Unicode reserves for use inside programs."""
UNITS = ("char", "byte")
NEWLINES = ("keep", "universal")
FORMS = ("nfc", "nfd", "nfkc", "nfkd")
CODE_POINTS = 0x110000


class Charset:
    """An alphabet. Its length is V, the unknown character included.

    Args:
        characters: the characters of the alphabet, in any order, with or without duplicates.
        unit: "char" for Unicode code points, "byte" for bytes.
        normalize: Unicode normalization form applied to text before encoding (UAX #15), one of
            ``FORMS``, or None. Not supported with unit="byte".
        lowercase: convert text to lower case, after normalization. Not supported with unit="byte".
        documents: include ``BOUNDARY`` in the alphabet, at which a model resets its state. Not
            supported with unit="byte".
        newlines: "universal" reads CRLF and CR as LF. Not supported with unit="byte".

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        characters: Iterable[str] = "",
        unit: str = "char",
        normalize: str | None = None,
        lowercase: bool = False,
        documents: bool = False,
        newlines: str = "keep",
    ):
        check("unit", unit, unit in UNITS, " or ".join(UNITS))
        check("normalize", normalize, normalize in (None, *FORMS), f"{', '.join(FORMS)} or null")
        check("newlines", newlines, newlines in NEWLINES, " or ".join(NEWLINES))
        in_bytes = unit == "byte"
        check("normalize", normalize, not (in_bytes and normalize), "null with unit=byte")
        check("lowercase", lowercase, not (in_bytes and lowercase), "false with unit=byte")
        check("document", documents, not (in_bytes and documents), "null with unit=byte")
        check("newlines", newlines, not (in_bytes and newlines != "keep"), "keep with unit=byte")
        self.unit, self.normalize, self.lowercase = unit, normalize, lowercase
        self.documents, self.newlines = documents, newlines
        if documents:
            characters = [*characters, BOUNDARY]
        # Bytes do not include U+FFFD, so no byte is mistaken for the unknown character.
        self.alphabet = "".join(sorted(set(characters) - {UNKNOWN}))
        points = to_points(UNKNOWN + self.alphabet)
        limit = 256 if in_bytes else CODE_POINTS
        check("characters", self.alphabet[-1:], points[1:].max(initial=0) < limit, "bytes 0 to 255")
        self._points = points
        # Lookup table from a code point (or byte) to its index.
        self.index = np.zeros(limit, np.min_scalar_type(len(self) - 1))
        self.index[points[1:]] = np.arange(1, len(points))
        # Indices of ASCII characters fit a byte, whatever the size of the alphabet.
        self._bytes = self.index[:256].astype(np.uint8).tobytes()

    @classmethod
    def from_text(cls, text: str | bytes, unit: str = "char", **options) -> "Charset":
        """Return the alphabet of a text; ``options`` as in the constructor."""
        charset = cls("", unit, **options)
        return cls(charset.preprocess(text), unit, **options)

    def __len__(self) -> int:
        return len(self._points)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Charset):
            return NotImplemented
        return self._mapping == other._mapping

    def __hash__(self) -> int:
        return hash(self._mapping)

    @property
    def _mapping(self) -> tuple:
        """What makes two charsets equal: how they map text without CR."""
        return (self.alphabet, self.unit, self.normalize, self.lowercase, self.documents)

    def __repr__(self) -> str:
        return f"Charset({self.alphabet!r}, unit={self.unit!r})"

    def preprocess(self, text: str | bytes) -> str:
        """Normalize a text, its newlines and case, or map its bytes to the code points 0 to 255.

        With unit="byte" a str is encoded as UTF-8 first.
        """
        if self.unit == "byte":
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            return data.decode("latin-1")
        if self.newlines == "universal" and "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if self.normalize:
            text = unicodedata.normalize(self.normalize.upper(), text)
        if self.lowercase:
            # str.lower is context-sensitive for the capital sigma only, and a text is converted
            # in chunks.
            text = text.replace("\u03a3", "\u03c3").lower()
        return text

    def encode(self, text: str | bytes) -> np.ndarray:
        """Return the indices (N,) of a text, in the smallest unsigned type that holds V - 1.

        N is the length of the text after :meth:`preprocess`.
        """
        indices = self.lookup(self.preprocess(text))
        return indices if indices.flags.writeable else indices.copy()  # torch warns otherwise

    def lookup(self, characters: str) -> np.ndarray:
        """Return the indices (N,) of preprocessed text; the array may be read-only."""
        dtype = self.index.dtype
        if characters.isascii() or (self.unit == "byte" and dtype == np.uint8):  # twice as fast
            data = characters.encode("latin-1").translate(self._bytes)
            return np.frombuffer(data, np.uint8).astype(dtype, copy=False)
        # Every code point is within the table; "clip" skips numpy's bounds check.
        return np.take(self.index, to_points(characters), mode="clip")

    def decode(self, indices: Iterable[int]) -> str:
        """Return the text of indices. With unit="byte", undecodable bytes become U+FFFD."""
        decoder = self.decoder()
        return decoder(np.fromiter(indices, np.int64)) + decoder(None)

    def decoder(self):
        """Return an incremental decoder: a function from an index, or indices (N,), to text.

        With unit="byte" the bytes of an incomplete character are buffered; calling the function
        with None flushes them.
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
            for part in others:  # each starts with the unknown character
                text += decoder.decode(b"", True) + UNKNOWN + decoder.decode(part[1:].tobytes())
            return text

        return step

    def unknown_characters(self, text: str | bytes) -> str:
        """Return the distinct characters of a text that are not in the alphabet, in order."""
        known = {*self.alphabet, UNKNOWN}
        return "".join(c for c in dict.fromkeys(self.preprocess(text)) if c not in known)

    def format_characters(self, characters: str) -> str:
        """Format the first five characters for an error message."""
        form = "byte 0x{1:02X}" if self.unit == "byte" else "{0!r} (U+{1:04X})"
        return ", ".join(form.format(c, ord(c)) for c in characters[:5])

    @property
    def points(self) -> np.ndarray:
        """The code points (or bytes) of the indices, (V,) uint32."""
        return self._points

    @property
    def boundary(self) -> int | None:
        """Index of ``BOUNDARY``, or None if the text has no documents."""
        return int(self.index[ord(BOUNDARY)]) if self.documents else None

    @property
    def options(self) -> dict[str, str | bool | None]:
        """The constructor arguments other than the characters: how text is preprocessed."""
        names = ("unit", "normalize", "lowercase", "documents", "newlines")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, str | bool | None]:
        """Return plain values such that ``Charset(**state)`` is equal to this charset."""
        return {"characters": self.alphabet, **self.options}


def to_points(text: str) -> np.ndarray:
    """Return the code points of a str, (N,) uint32, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def to_text(points: np.ndarray) -> str:
    """Return the str of code points, uint32; the inverse of :func:`to_points`."""
    return points.tobytes().decode("utf-32-le", "surrogatepass")
