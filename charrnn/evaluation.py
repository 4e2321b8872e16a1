"""How likely a text is: cold and warm figures of an evaluation, and the score of each character.

T time steps in a window, R rows, N characters, L layers, H hidden size, V vocabulary size.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.stream import Window

PADDING = -100  # what cross_entropy ignores
BURN_IN = 500
"""Characters that a row is read in over. Between 4 and 512 rows of 111,540 characters (of tiny
Shakespeare, H 128, L 2) the means differed by 0.028 nats without, 5e-6 with 100, 1e-6 with 250."""


class EvaluationWindows:
    """One pass over a part of a text, in which each of its characters is a target exactly once.

    Row i + 1 begins where row i ends, as in :class:`charrnn.RowStream`; but nothing comes from
    around the circle. *Warm*, each row is read in from before its start, so that the figures hardly
    depend on the number of rows; *cold*, with a burn-in of 0, from a zero state.

    Args:
        tokens: (N,) indices of the whole text, N at least 2.
        seq_len: T.
        begin, end: the part whose characters are targets. The first character of a text never is,
            since it has no context.
        rows: R; None takes as many as leave each 16 windows and four times the burn-in, 64 at the
            most, whatever the batch size in training.
        burn_in: characters that are read before each row, or as many of them as there are.
    """

    def __init__(
        self,
        tokens: Tensor,
        seq_len: int,
        begin: int = 1,
        end: int | None = None,
        rows: int | None = None,
        burn_in: int = BURN_IN,
    ):
        self.tokens, self.seq_len, self.burn_in = tokens, seq_len, burn_in
        self.begin, self.end = max(1, begin), len(tokens) if end is None else end
        count = self.end - self.begin
        self.rows = rows or max(1, min(64, count // max(16 * seq_len, 4 * burn_in)))
        self.length = -(-count // (self.rows * seq_len))
        self.starts = self.begin - 1 + torch.arange(self.rows) * (self.length * seq_len)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Window]:
        for index in range(self.length):
            places = self.starts + index * self.seq_len + torch.arange(self.seq_len + 1)[:, None]
            characters = self._read(places)
            targets = characters[1:].masked_fill(places[1:] >= self.end, PADDING)
            yield Window(characters[:-1], targets, index)

    @torch.no_grad()
    def initial_state(self, model: nn.Module) -> Tensor:
        """The state (L, R, H) in which the rows begin."""
        state = model.initial_state(self.rows)
        # A row near the beginning of the text has less before it, and joins the others later.
        joins = (self.burn_in - self.starts).clamp(min=0)
        cuts = {*joins.tolist(), *range(0, self.burn_in, self.seq_len), self.burn_in}
        for cut, following in itertools.pairwise([*sorted(cuts), None]):
            state = state.masked_fill((joins >= cut).to(state.device)[:, None], 0)
            if following is not None:
                places = self.starts - self.burn_in + torch.arange(cut, following)[:, None]
                _, state = model.outputs(self._read(places).to(state.device), state)
        return state

    def _read(self, places: Tensor) -> Tensor:
        """The characters at places; those that are none of the text's are of no matter."""
        return self.tokens[places.clamp(0, len(self.tokens) - 1)].long()


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
