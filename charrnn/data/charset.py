"""Charset: the sorted alphabet of a corpus, and text to indices and back.

Index 0 is U+FFFD and stands for every character outside the alphabet; then come the characters
in the order of their code points. With unit="byte" the characters are bytes, written as the
code points 0 to 255.
"""

import codecs
import unicodedata
from collections.abc import Iterable

import numpy as np

from charrnn.errors import check

UNKNOWN = "\ufffd"
BOUNDARY = "\uffff"
"""The beginning of a document: a code point that Unicode keeps out of texts, for programs' use."""
UNITS = ("char", "byte")
FORMS = ("nfc", "nfd", "nfkc", "nfkd")
CODE_POINTS = 0x110000


class Charset:
    """An alphabet. Its length is V, the unknown character included.

    Args:
        characters: what belongs to the alphabet, in any order, repeated or not; a str.
        unit: "char" for Unicode code points, "byte" for bytes.
        normalize: the Unicode normalisation form in which a text is read (UAX #15), one of
            ``FORMS``; None reads it as it is. Not of bytes.
        lowercase: whether a text is read in lower case, after normalisation. Not of bytes.
        documents: whether ``BOUNDARY`` belongs to the alphabet, and a model starts anew there. Not
            of bytes.
    """

    def __init__(
        self,
        characters: Iterable[str] = "",
        unit: str = "char",
        normalize: str | None = None,
        lowercase: bool = False,
        documents: bool = False,
    ):
        check("unit", unit, unit in UNITS, " or ".join(UNITS))
        check("normalize", normalize, normalize in (None, *FORMS), f"{', '.join(FORMS)} or null")
        in_bytes = unit == "byte"
        check("normalize", normalize, not (in_bytes and normalize), "null with unit=byte")
        check("lowercase", lowercase, not (in_bytes and lowercase), "false with unit=byte")
        check("document", documents, not (in_bytes and documents), "null with unit=byte")
        self.unit, self.normalize, self.lowercase = unit, normalize, lowercase
        self.documents = documents
        if documents:
            characters = [*characters, BOUNDARY]
        # In bytes there is no U+FFFD, so that no byte is taken for the unknown.
        self.alphabet = "".join(sorted(set(characters) - {UNKNOWN}))
        points = to_points(UNKNOWN + self.alphabet)
        limit = 256 if in_bytes else CODE_POINTS
        check("characters", self.alphabet[-1:], points[1:].max(initial=0) < limit, "bytes 0 to 255")
        self._points = points
        # From a code point (or byte) to its index.
        self.index = np.zeros(limit, np.min_scalar_type(len(self) - 1))
        self.index[points[1:]] = np.arange(1, len(points))
        # Of ASCII all indices fit a byte, whatever the size of the alphabet.
        self._bytes = self.index[:256].astype(np.uint8).tobytes()

    @classmethod
    def from_text(cls, text: str | bytes, unit: str = "char", **reading) -> "Charset":
        """The alphabet of a text."""
        charset = cls("", unit, **reading)
        return cls(charset.characters(text), unit, **reading)

    def __len__(self) -> int:
        return len(self._points)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Charset):
            return NotImplemented
        return self.state_dict() == other.state_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.state_dict().values()))

    def __repr__(self) -> str:
        return f"Charset({self.alphabet!r}, unit={self.unit!r})"

    def characters(self, text: str | bytes) -> str:
        """A text as this charset reads it: in its normal form and case, or its bytes as the code
        points 0 to 255 (a str is taken as UTF-8 then)."""
        if self.unit == "byte":
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            return data.decode("latin-1")
        if self.normalize:
            text = unicodedata.normalize(self.normalize.upper(), text)
        if self.lowercase:
            # Each character by itself: str.lower looks at the neighbours of a capital sigma alone.
            text = text.replace("\u03a3", "\u03c3").lower()
        return text

    def encode(self, text: str | bytes) -> np.ndarray:
        """Indices of a text, (N,) of the smallest unsigned type that holds V - 1; N is the length
        of :meth:`characters`."""
        indices = self.indices(self.characters(text))
        return indices if indices.flags.writeable else indices.copy()  # torch warns of others

    def indices(self, characters: str) -> np.ndarray:
        """Indices (N,) of what :meth:`characters` returned, or a part of it."""
        dtype = self.index.dtype
        if characters.isascii() or (self.unit == "byte" and dtype == np.uint8):  # twice as fast
            data = characters.encode("latin-1").translate(self._bytes)
            return np.frombuffer(data, np.uint8).astype(dtype, copy=False)
        # No code point is beyond the table; "clip" spares numpy the question.
        return np.take(self.index, to_points(characters), mode="clip")

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
        known = {*self.alphabet, UNKNOWN}
        return "".join(c for c in dict.fromkeys(self.characters(text)) if c not in known)

    def named(self, characters: str) -> str:
        """The first five of characters, for a message."""
        form = "byte 0x{1:02X}" if self.unit == "byte" else "{0!r} (U+{1:04X})"
        return ", ".join(form.format(c, ord(c)) for c in characters[:5])

    @property
    def boundary(self) -> int | None:
        """The index of ``BOUNDARY``; None where a text is not made of documents."""
        return int(self.index[ord(BOUNDARY)]) if self.documents else None

    @property
    def reading(self) -> dict[str, str | bool | None]:
        """How a text is read: the arguments besides the characters."""
        names = ("unit", "normalize", "lowercase", "documents")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, str | bool | None]:
        """Plain values that make the same charset: Charset(**state)."""
        return {"characters": self.alphabet, **self.reading}


def border(text: str) -> int:
    """The last place, after the first character, where a text may be cut so that the normal forms
    of both parts, one after the other, are that of the whole; 0 where there is none.

    Such a place is before a character that no form joins to what stands before it: in full
    decomposition it begins with neither a mark nor a vowel or final consonant of Hangul.
    """
    for place in range(len(text) - 1, 0, -1):
        first = unicodedata.normalize("NFKD", text[place])[0]
        if unicodedata.category(first)[0] != "M" and not "\u1160" <= first <= "\u11ff":
            return place
    return 0


def to_points(text: str) -> np.ndarray:
    """The code points of a str, (N,) uint32. Lone surrogates pass."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def to_text(points: np.ndarray) -> str:
    """The str of code points, uint32: what ``to_points`` was made from."""
    return points.tobytes().decode("utf-32-le", "surrogatepass")
