"""Settings of decoding: temperature, filters, allowed characters, beam search, stop strings.

V vocabulary size.
"""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from charrnn.data.charset import BOUNDARY, UNKNOWN, Charset
from charrnn.errors import InputError, check

REGEX = "re:"
"""Prefix of an ``allow`` that is a regular expression."""


@dataclass(frozen=True)
class Decoding:
    """How texts are generated from a model's probabilities.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest character.
        top_k: keep the k likeliest characters (Fan et al. 2018, arXiv:1805.04833).
        min_p: keep the characters with at least this fraction of the highest probability (Nguyen
            et al. 2024, arXiv:2407.01082).
        top_p: keep the fewest characters that together have this probability (Holtzman et al.
            2020, arXiv:1904.09751).
        allow: the characters that may be generated, as one text; or ``re:`` and a regular
            expression that matches each of them, as in ``re:[0-9]``. With unit="byte" a character
            allows its bytes. The end of a document is always allowed.
        no_repeat: n; no n-gram occurs twice in the last 1000 characters, prompt included (Paulus
            et al. 2018, arXiv:1705.04304), unless that excludes every character. A penalty on all
            earlier tokens, as for models of words (Keskar et al. 2019), would suppress the most
            frequent letters.
        beam: instead of sampling, take the best text that a beam search of this width finds.
        length_penalty: alpha of the beam search's score, see :mod:`charrnn.generation.beam`.
        stop: a stop string or a list of them. A sample ends with the first, which it includes.
        precision: 32, or 16 or 8 to sample with weights of so many bits, by the native kernels on
            a CPU: one text of a model that is larger than the cache is written faster. 16 rounds
            them to bfloat16, 8 to whole numbers of +-127 times a scale for each row of a weight.

    Raises:
        InputError: names the setting that is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    allow: str | None = None
    no_repeat: int | None = None
    beam: int | None = None
    length_penalty: float = 0.6
    stop: str | list[str] | None = None
    precision: int = 32

    def __post_init__(self):
        finite = is_number(self.temperature) and 0 <= self.temperature < math.inf
        check("temperature", self.temperature, finite, "at least 0 (0 takes the likeliest)")
        for name in ("top_k", "no_repeat", "beam"):
            value = getattr(self, name)
            ok = value is None or is_integer(value, 1)
            check(name, value, ok, "a whole number, at least 1, or null")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            ok = value is None or (is_number(value) and 0 < value <= 1)
            check(name, value, ok, "above 0, at most 1, or null")
        ok = is_number(self.length_penalty) and 0 <= self.length_penalty < math.inf
        check("length_penalty", self.length_penalty, ok, "at least 0")
        ok = self.allow is None or (isinstance(self.allow, str) and self.allow)
        check("allow", self.allow, ok, "characters, or re: and a regular expression, or null")
        ok = isinstance(self.stop, str | list | tuple | None)
        ok = ok and all(isinstance(stop, str) and stop for stop in self.stops)
        check("stop", self.stop, ok, "a text or a list of texts, without an empty one")
        check("precision", self.precision, self.precision in (32, 16, 8), "32, 16 or 8")
        if self.beam is not None:
            exact = self.precision == 32
            check("precision", self.precision, exact, "32 with beam")
            sampled = self.temperature == 1
            check("temperature", self.temperature, sampled, "1 with beam, which draws nothing")
            for name in ("top_k", "top_p", "min_p"):
                value = getattr(self, name)
                check(name, value, value is None, "null with beam, which draws nothing")

    @property
    def stops(self) -> list[str]:
        """The stop strings, as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def filters(self) -> tuple[float | None, ...]:
        """The arguments of ``filter_probabilities`` between the logits and the mask."""
        return self.temperature, self.top_k, self.top_p, self.min_p

    def allowed_mask(self, charset: Charset) -> Tensor | None:
        """Compute the mask (V,) of the characters that ``allow`` allows; None where it is null.

        Raises:
            InputError: it allows nothing, or a character that the model does not know.
        """
        if self.allow is None:
            return None
        if self.allow.startswith(REGEX):
            flags = re.ASCII if charset.unit == "byte" else 0
            try:
                pattern = re.compile(self.allow.removeprefix(REGEX), flags)
            except re.error as error:
                raise InputError(f"allow={self.allow}: no regular expression: {error}") from error
            allowed = {c for c in charset.alphabet if c != BOUNDARY and pattern.fullmatch(c)}
            expected = "an expression that matches a single character of the model's alphabet"
            check("allow", self.allow, allowed, expected)
        else:
            if missing := charset.unknown_characters(self.allow):
                raise InputError(
                    f"allow: the model does not know {charset.format_characters(missing)};"
                    " leave that out"
                )
            allowed = set(charset.preprocess(self.allow))
        return torch.tensor([c in allowed | {BOUNDARY} for c in UNKNOWN + charset.alphabet])


def is_integer(value: object, minimum: int) -> bool:
    """Whether a value is an int (not a bool) and at least the minimum."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def is_number(value: object) -> bool:
    """Whether a value is an int or a float (not a bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool)
