"""How likely a text is: cold and warm figures of an evaluation, and the score of each character.

T time steps in a window, R rows, N characters, L layers, H hidden size, V vocabulary size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.data.windows import PADDING, EvaluationWindows


@dataclass
class Figures:
    """Sums over the targets of an evaluation, and what is reported of them."""

    characters: int = 0
    total: float = 0.0
    """Nats of all of them."""
    guessed: int = 0
    """How many were the likeliest character."""
    unknown: int = 0
    """How many are outside the alphabet, or U+FFFD; ``unknown_total`` is their nats."""
    unknown_total: float = 0.0

    def add(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Count a window: logits (T, R, V) and targets (T, R). Returns the sum of its nats."""
        logits, targets = logits.flatten(0, 1), targets.flatten()
        nats = F.cross_entropy(logits, targets, reduction="none")
        with torch.no_grad():
            exact = nats.double()
            unknown = targets == 0
            self.characters += int((targets != PADDING).sum())
            self.total += exact.sum().item()
            self.guessed += int((logits.argmax(-1) == targets).sum())
            self.unknown += int(unknown.sum())
            self.unknown_total += exact[unknown].sum().item()
        return nats.sum()

    @property
    def nats(self) -> float:
        """The mean over all targets."""
        return self.total / self.characters

    @property
    def unknown_cost(self) -> float:
        """How much higher the mean is than that of the known characters alone; 0 if those are 0."""
        known = self.characters - self.unknown
        return self.nats - (self.total - self.unknown_total) / known if known else 0.0

    def report(self) -> dict[str, float]:
        """Nats, bits and perplexity per character, and the share of right first guesses."""
        return {
            "nats": self.nats,
            "bpc": self.nats / math.log(2),
            "perplexity": math.exp(self.nats) if self.nats < 700 else math.inf,
            "accuracy": self.guessed / self.characters,
        }


@torch.inference_mode()
def evaluate(model: nn.Module, windows: EvaluationWindows) -> Figures:
    """The figures of a model, in evaluation mode, that stays as it is."""
    figures, state = Figures(), windows.initial_state(model)
    for window in windows:
        inputs, targets = (part.to(state.device) for part in window[:2])
        logits, state = model(inputs, state)
        figures.add(logits, targets)
    return figures


def score(model: nn.Module, indices: Tensor, seq_len: int = 1000) -> np.ndarray:
    """The nats of every character after the first, (N - 1,) float64, from a zero state.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        indices: (N,) int64.
        seq_len: how many characters are read at once, at most; the result does not depend on it.
    """
    return score_many(model, [indices], seq_len)[0]


@torch.inference_mode()
def score_many(
    model: nn.Module, texts: Sequence[Tensor], seq_len: int = 1000, rows: int = 64
) -> list[np.ndarray]:
    """What :func:`score` returns, for each of several texts, in their order.

    Texts of like lengths are read at once, ``rows`` of them, so that hardly any padding is.
    """
    scores: list = [np.zeros(0)] * len(texts)
    order = sorted((i for i in range(len(texts)) if len(texts[i]) > 1), key=lambda i: len(texts[i]))
    for batch in (order[k : k + rows] for k in range(0, len(order), rows)):
        # No more than 64 MiB of logits at a time.
        steps = max(1, min(seq_len, 2**24 // (len(batch) * model.decoder.out_features)))
        padded = nn.utils.rnn.pad_sequence([texts[i] for i in batch], padding_value=PADDING)
        inputs, state, nats = padded[:-1].clamp(min=0), model.initial_state(len(batch)), []
        for now, then in zip(inputs.split(steps), padded[1:].split(steps)):
            window, state = model.nll(now.to(state.device), then.to(state.device), state)
            nats.append(window.double().cpu())
        for i, column in zip(batch, torch.cat(nats).T.numpy()):
            scores[i] = column[: len(texts[i]) - 1].copy()
    return scores
