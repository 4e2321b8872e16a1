"""Filters: logits to the probabilities that are sampled from, and sampling one character of them.

B samples, V vocabulary size, N characters of a text.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn


def filter_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """Compute probabilities (B, V) float64 from logits (B, V).

    Temperature is applied first, then top_k, min_p and top_p, each to what the previous one left.

    Args:
        temperature, top_k, top_p, min_p: as in :class:`charrnn.generation.decoding.Decoding`.
        allowed: (B, V) or (V,) bool; other characters are treated as if their logit were -inf.
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
    probabilities = logits.softmax(-1)
    if top_p is not None:
        ordered, order = probabilities.sort(descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        probabilities = probabilities.masked_fill(beyond.scatter(-1, order, beyond), 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def sample_next(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Sample one index (B,) from each row of probabilities (B, V).

    Args:
        uniforms: random numbers in [0, 1), (B,).
    """
    sums = probabilities.cumsum(-1)
    # Scaled by the sum itself, which rounding leaves a little off 1, so that the last character
    # of positive probability is never passed.
    return torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True)[:, 0]


def ngram_mask(allowed: Tensor | None, texts: np.ndarray, n: int, vocab_size: int) -> Tensor:
    """Compute the mask (B, V) of the characters that repeat no n-gram (Paulus et al. 2018).

    Args:
        allowed: (V,) bool, the characters that may come at all; None for all. A text whose n-grams
            exclude every one of them gets all of them.
        texts: (B, N) indices of the last characters of each text.
        n: length of the n-grams.
    """
    every = np.ones(vocab_size, bool) if allowed is None else allowed.numpy()
    mask = np.tile(every, (len(texts), 1))
    if (count := texts.shape[1] - n + 1) > 0:
        # Positions of the last n - 1 characters; numpy takes a third of the time of torch.
        same = np.ones((len(texts), count), bool)
        for j in range(n - 1):
            same &= texts[:, j : j + count] == texts[:, count + j, None]
        row, position = same.nonzero()
        mask[row, texts[row, position + n - 1]] = False
        mask[~mask.any(1)] = every
    return torch.from_numpy(mask)
