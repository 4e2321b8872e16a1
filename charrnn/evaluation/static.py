"""Static evaluation: the loss of a model on a text, and the score of each character.

T time steps in a window, R rows, N characters, V vocabulary size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.data.waiting import say_progress
from charrnn.data.windows import PADDING, EvaluationWindows
from charrnn.evaluation.totals import Totals
from charrnn.models import contract

MAX_LOGITS = 2**24
"""Maximum number of logits at a time, 64 MiB of float32."""
SHORT = 256
"""Characters of a batch whose logits are below that with any vocabulary of at most 65,536."""


@torch.inference_mode()
def evaluate(model: nn.Module, windows: EvaluationWindows) -> Totals:
    """Evaluate a model with fixed parameters.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        windows: the text. With a burn-in the result is called *warm*, without it *cold*.
    """
    totals, state = Totals(), contract.warm_state(model, windows)
    device = contract.device_of(model)
    for window in say_progress(windows, "evaluation"):
        inputs, targets = (part.to(device) for part in window[:2])
        logits, state = contract.run(model, inputs, state)
        totals.add(logits, targets)
    return totals


def score(model: nn.Module, indices: Tensor, seq_len: int = 1000) -> np.ndarray:
    """Compute the nats of every character after the first, (N - 1,) float64, from a zero state.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        indices: (N,) int64.
        seq_len: characters per call of the model, at most; it does not change the result.
    """
    return score_many(model, [indices], seq_len)[0]


@torch.inference_mode()
def score_many(
    model: nn.Module, texts: Sequence[Tensor], seq_len: int = 1000, rows: int = 64
) -> list[np.ndarray]:
    """Compute what :func:`score` returns for each of several texts.

    Args:
        rows: texts per batch. Texts of similar length share one, so that there is little padding.
    """
    scores: list = [np.zeros(0)] * len(texts)
    device = contract.device_of(model)
    order = sorted((i for i in range(len(texts)) if len(texts[i]) > 1), key=lambda i: len(texts[i]))
    for batch in (order[k : k + rows] for k in range(0, len(order), rows)):
        padded = nn.utils.rnn.pad_sequence([texts[i] for i in batch], padding_value=PADDING)
        inputs, nats = padded[:-1].clamp(min=0).to(device), []
        state, steps = contract.initial_state(model, len(batch)), seq_len
        if inputs.numel() > SHORT:
            logits, _ = contract.run(model, inputs[:1], state)
            steps = max(1, min(seq_len, MAX_LOGITS // logits.numel()))
        for now, then in zip(inputs.split(steps), padded[1:].split(steps)):
            window, state = contract.nll(model, now, then.to(device), state)
            nats.append(window.double().cpu())
        for i, column in zip(batch, torch.cat(nats).T.numpy()):
            scores[i] = column[: len(texts[i]) - 1].copy()
    return scores
