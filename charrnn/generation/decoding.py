"""Which characters may come next, and how one of them is chosen.

B samples, V vocabulary size, N characters of a text.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.data.charset import BOUNDARY, UNKNOWN, Charset
from charrnn.errors import InputError, check

RECENT = 1000  # characters in which the guard against repetition looks
REGEX = "re:"  # what an ``allow`` begins with that is a regular expression


@dataclass(frozen=True)
class Decoding:
    """How texts are made from a model's probabilities. Raises InputError, naming the setting.

    Attributes:
        temperature: divides the logits; 0 leaves the likeliest character alone.
        top_k: leave the k likeliest (Fan et al. 2018, arXiv:1805.04833).
        min_p: leave those that have this share of the likeliest's probability (Nguyen et al. 2024,
            arXiv:2407.01082).
        top_p: leave the fewest that together have this probability (Holtzman et al. 2020,
            arXiv:1904.09751).
        allow: the characters that may come, as one text; or, where it begins with ``re:``, all that
            the regular expression behind it matches, as in ``re:[0-9]``. With unit="byte" a
            character allows its bytes. A document may end all the same.
        no_repeat: n; no n characters come that stand in this order among the last 1000 already, the
            prompt included (Paulus et al. 2018, arXiv:1705.04304). Where that leaves none, it is
            waived. A penalty on all that came before (Keskar et al. 2019), as models of words have
            it, would drive a text of characters from its letters. Each character comes by itself
            then, which costs about 80 us more.
        beam: in place of drawing, the best text that a beam search of this width finds.
        length_penalty: alpha of the beam search's score, as in :mod:`charrnn.generation.beam`.
        stop: a text, or a list of them, that ends a sample, which it is part of.
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

    def __post_init__(self):
        finite = is_number(self.temperature) and 0 <= self.temperature < math.inf
        check("temperature", self.temperature, finite, "at least 0 (0 takes the likeliest)")
        for name in ("top_k", "no_repeat", "beam"):
            value = getattr(self, name)
            ok = value is None or is_whole(value, 1)
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
        if self.beam is not None:
            drawn = self.temperature == 1
            check("temperature", self.temperature, drawn, "1 with beam, which draws nothing")
            for name in ("top_k", "top_p", "min_p"):
                value = getattr(self, name)
                check(name, value, value is None, "null with beam, which draws nothing")

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def filters(self) -> tuple[float | None, ...]:
        """What :func:`probabilities` takes besides logits and a mask."""
        return self.temperature, self.top_k, self.top_p, self.min_p

    def allowed(self, charset: Charset) -> Tensor | None:
        """The mask (V,) of what ``allow`` allows; None where it is all.

        Raises InputError where that is nothing, or a character that the model does not know.
        """
        if self.allow is None:
            return None
        if self.allow.startswith(REGEX):
            flags = re.ASCII if charset.unit == "byte" else 0
            try:
                pattern = re.compile(self.allow.removeprefix(REGEX), flags)
            except re.error as error:
                raise InputError(f"allow={self.allow}: no regular expression: {error}") from error
            chosen = {c for c in charset.alphabet if c != BOUNDARY and pattern.fullmatch(c)}
            wanted = "an expression that matches a single character of the model's alphabet"
            check("allow", self.allow, chosen, wanted)
        else:
            if missing := charset.unknown_characters(self.allow):
                raise InputError(
                    f"allow: the model does not know {charset.format_characters(missing)};"
                    " leave that out"
                )
            chosen = set(charset.preprocess(self.allow))
        return torch.tensor([c in chosen | {BOUNDARY} for c in UNKNOWN + charset.alphabet])


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number, not below the least."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """Logits (B, V) to the probabilities that are drawn from, (B, V) float64.

    Args:
        temperature, top_k, top_p, min_p: as in :class:`Decoding`. Temperature comes first, then
            top_k, min_p and top_p, each of what the one before has left.
        allowed: (B, V) or (V,), bool; what else may not come at all, as if its logit were -inf.
    """
    logits = logits.double()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    if temperature == 0:
        return nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).double()
    # Subtracted first, so that a low temperature does not overflow.
    logits = (logits - logits.max(-1, keepdim=True).values) / temperature
    if top_k is not None and top_k < logits.size(-1):
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if min_p is not None:
        logits = logits.masked_fill(logits < math.log(min_p), -torch.inf)
    chances = logits.softmax(-1)
    if top_p is not None:
        ordered, order = chances.sort(descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        chances = chances.masked_fill(beyond.scatter(-1, order, beyond), 0.0)
        chances = chances / chances.sum(-1, keepdim=True)
    return chances


def draw(chances: Tensor, uniforms: Tensor) -> Tensor:
    """One index for each row, (B,), from chances (B, V) and numbers in [0, 1), (B,)."""
    sums = chances.cumsum(-1)
    # Scaled by the sum itself, which rounding leaves a little off 1, and never past the last
    # character that has a chance.
    return torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True)[:, 0]


def without_repeats(allowed: Tensor | None, texts: np.ndarray, n: int, vocab_size: int) -> Tensor:
    """The mask (B, V) of what may follow texts, (B, N) indices, so that no n characters come twice.

    Args:
        allowed: (V,) bool, what may come at all; None for everything. Where the guard leaves a
            text nothing of it, all of it may come.
    """
    mask = np.ones(vocab_size, bool) if allowed is None else allowed.numpy()
    left = np.tile(mask, (len(texts), 1))
    if (count := texts.shape[1] - n + 1) > 0:
        # Where n - 1 characters are the last ones; in numpy, a third of the time of torch.
        same = np.ones((len(texts), count), bool)
        for j in range(n - 1):
            same &= texts[:, j : j + count] == texts[:, count + j, None]
        row, place = same.nonzero()
        left[row, texts[row, place + n - 1]] = False
        left[~left.any(1)] = mask
    return torch.from_numpy(left)
