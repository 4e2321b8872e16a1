"""Sums over the targets of an evaluation, and the measures that are reported of them.

T time steps in a window, R rows, V vocabulary size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from charrnn.data.windows import PADDING


@dataclass
class Totals:
    """Sums over the targets of an evaluation.

    Attributes:
        characters: number of targets.
        total: nats of all targets.
        correct: number of targets that were the likeliest character.
        unknown: number of targets outside the alphabet (or U+FFFD).
        unknown_total: nats of these.
    """

    characters: int = 0
    total: float = 0.0
    correct: int = 0
    unknown: int = 0
    unknown_total: float = 0.0

    def add(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Add a window, logits (T, R, V) and targets (T, R), and return the sum of its nats."""
        logits, targets = logits.flatten(0, 1), targets.flatten()
        nats = F.cross_entropy(logits, targets, reduction="none")
        with torch.no_grad():
            exact = nats.double()
            unknown = targets == 0
            self.characters += int((targets != PADDING).sum())
            self.total += exact.sum().item()
            self.correct += int((logits.argmax(-1) == targets).sum())
            self.unknown += int(unknown.sum())
            self.unknown_total += exact[unknown].sum().item()
        return nats.sum()

    @property
    def nats(self) -> float:
        """Mean nats per character."""
        return self.total / self.characters

    @property
    def unknown_cost(self) -> float:
        """Mean nats of all characters minus that of the known ones; 0 where none is known."""
        known = self.characters - self.unknown
        return self.nats - (self.total - self.unknown_total) / known if known else 0.0

    def report(self) -> dict[str, float]:
        """Return nats, bits per character, perplexity and accuracy."""
        return {
            "nats": self.nats,
            "bpc": self.nats / math.log(2),
            "perplexity": math.exp(self.nats) if self.nats < 700 else math.inf,
            "accuracy": self.correct / self.characters,
        }
