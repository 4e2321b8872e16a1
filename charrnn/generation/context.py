"""Prefill: a model reads a prompt, and the context that it leaves is all that sampling needs.

V vocabulary size, N characters.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.data.charset import BOUNDARY, Charset
from charrnn.models import contract
from charrnn.models.state import State

PREFILL_CHUNK = 1000
"""Characters of a prompt that are read in one call of the model."""
RECENT = 1000
"""Characters of which the n-gram mask looks for repetitions."""


class Context(NamedTuple):
    """What is left of the text that a model has read.

    Attributes:
        state: of one row, after the text.
        logits: (1, V) of the next character.
        recent: (N,) indices of the last characters, at most ``RECENT``.
        count: number of characters read.
    """

    state: State
    logits: Tensor
    recent: np.ndarray
    count: int


@torch.inference_mode()
def prefill(
    model: nn.Module, charset: Charset, indices: np.ndarray, context: Context | None = None
) -> Context:
    """Read a prompt, from a zero state or after a context.

    Without any text, the context is that at the beginning of a document, or, where the charset
    knows no documents, that after a newline, or after U+FFFD where the alphabet has no newline.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        indices: (N,) of the prompt.
        context: of the text before it; it is not changed.
    """
    if context is not None and not len(indices):
        return context
    indices = indices.astype(np.int64)
    count, recent = (0, indices[:0]) if context is None else (context.count, context.recent)
    state = contract.initial_state(model, 1) if context is None else context.state
    first = charset.encode(BOUNDARY if charset.documents else "\n").astype(np.int64)
    inputs = indices if len(indices) else first
    for part in torch.from_numpy(inputs).to(contract.device_of(model)).split(PREFILL_CHUNK):
        logits, state = contract.run(model, part[:, None], state)
    recent = np.concatenate([recent, indices])[-RECENT:]
    # Cloned, because a view would keep the logits of the whole chunk in memory.
    return Context(state, logits[-1].clone(), recent, count + len(indices))
