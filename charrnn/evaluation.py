"""How likely a text is: the windows of an evaluation, and the score of each character.

T time steps in a window, R rows, N characters.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.stream import RowStream, Window

PADDING = -100  # what cross_entropy ignores


class EvaluationWindows:
    """One pass over a text in which every character after the first is a target exactly once.

    The rows are as many as leave each 16 windows, 64 at the most, whatever the batch size in
    training: a row's first characters are read without their past, and are then few among many.

    Args:
        tokens: (N,) indices, N at least 2; the first is context only.
        seq_len: T.
    """

    def __init__(self, tokens: Tensor, seq_len: int):
        rows = max(1, min(64, len(tokens) // (16 * seq_len)))
        self.rows = rows
        self.tokens = tokens
        self.seq_len = seq_len
        self.length = len(RowStream(tokens, rows, seq_len))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Window]:
        stream = iter(RowStream(self.tokens, self.rows, self.seq_len))
        row_starts = torch.arange(self.rows) * (self.length * self.seq_len)
        steps = torch.arange(self.seq_len)[:, None]
        for _ in range(self.length):
            window = next(stream)
            places = row_starts + window.index * self.seq_len + steps
            # The circle goes on at the beginning; what follows the last character is no target.
            targets = window.targets.masked_fill(places >= len(self.tokens) - 1, PADDING)
            yield window._replace(targets=targets)


@torch.inference_mode()
def mean_nats(model: nn.Module, windows: EvaluationWindows) -> float:
    """The mean over all targets; each row is read from a zero state.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
    """
    state, total, count = model.initial_state(windows.rows), 0.0, 0
    for window in windows:
        inputs, targets = (part.to(state.device) for part in window[:2])
        nats, state = model.nll(inputs, targets, state)
        total += nats.sum(dtype=torch.float64).item()
        count += int((targets >= 0).sum())
    return total / count


@torch.inference_mode()
def score(model: nn.Module, indices: Tensor, seq_len: int = 1000) -> np.ndarray:
    """The nats of every character after the first, (N - 1,) float64, from a zero state.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        indices: (N,) int64.
        seq_len: how many characters are read at once; the result does not depend on it.
    """
    if len(indices) < 2:
        return np.zeros(0)
    state = model.initial_state(1)
    nats = []
    for inputs, targets in zip(indices[:-1].split(seq_len), indices[1:].split(seq_len)):
        window, state = model.nll(inputs[:, None], targets[:, None], state)
        nats.append(window[:, 0].double().cpu())
    return torch.cat(nats).numpy()
