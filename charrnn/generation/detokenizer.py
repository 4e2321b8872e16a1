"""Text to indices and back: the encoding of prompts, and a detokenizer that stops at stop strings.

N characters.
"""

import numpy as np

from charrnn.data.charset import BOUNDARY, Charset
from charrnn.errors import InputError, check


def encode_prompt(charset: Charset, prompt: str, unknown: str = "error") -> np.ndarray:
    """Encode a prompt to indices (N,).

    Args:
        unknown: what to do with characters outside the alphabet: "error", "skip" them, or
            "replace" them by U+FFFD, index 0.

    Raises:
        InputError: names the unknown characters, with unknown="error".
    """
    check("unknown", unknown, unknown in ("error", "skip", "replace"), "error, skip or replace")
    if unknown != "replace" and (missing := charset.unknown_characters(prompt)):
        if unknown == "error":
            raise InputError(
                f"prompt: the model does not know {charset.format_characters(missing)}; change it,"
                " or say unknown=skip or unknown=replace"
            )
        # Not by index 0, which a U+FFFD in the prompt has too.
        known = [c not in missing for c in charset.preprocess(prompt)]
        return charset.encode(prompt)[known]
    return charset.encode(prompt)


class Detokenizer:
    """Decodes one sample incrementally, up to its first stop string or the end of its document.

    Attributes:
        ended: whether that has been reached.
    """

    def __init__(self, charset: Charset, stops: list[str]):
        self.decode, self.stops = charset.decoder(), stops
        self.documents = charset.documents
        self.longest = max(map(len, stops), default=1)
        self.tail = ""  # may be the beginning of a stop string
        self.ended = False

    def __call__(self, indices: np.ndarray, last: bool) -> str:
        """Return the text that indices (n,) add to the sample.

        Args:
            last: no more indices follow, so that incomplete characters are decoded too.
        """
        if self.ended:
            return ""
        added = self.decode(indices) + (self.decode(None) if last else "")
        if self.documents and BOUNDARY in added:
            added, self.ended = added.partition(BOUNDARY)[0], True
        if not self.stops:
            return added
        text = self.tail + added
        ends = [text.find(stop) + len(stop) for stop in self.stops if stop in text]
        self.ended = self.ended or bool(ends)
        start = len(self.tail)
        self.tail = text[max(0, len(text) - self.longest + 1) :]
        return text[start : min(ends, default=None)]
