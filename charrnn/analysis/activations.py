"""Activations and gates of every unit along a text, as arrays.

L layers, H hidden size, T characters.
"""

import numpy as np
import torch
from torch import nn

from charrnn.data.charset import Charset
from charrnn.errors import InputError
from charrnn.models.ensemble import Ensemble


def compute_activations(model: nn.Module, charset: Charset, text: str | bytes) -> np.ndarray:
    """Compute every unit's output after every character, from a zero state.

    Returns:
        (L, H, T), between -1 and 1.

    Raises:
        InputError: the model is an ensemble.
    """
    return _compute(model, charset, text, with_gates=False)[0]


def compute_gates(
    model: nn.Module, charset: Charset, text: str | bytes
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the reset and the update gate of every unit at every character, each (L, H, T).

    Raises:
        InputError: the model is an ensemble.
    """
    return _compute(model, charset, text, with_gates=True)


@torch.inference_mode()
def _compute(
    model: nn.Module, charset: Charset, text: str | bytes, with_gates: bool
) -> tuple[np.ndarray, ...]:
    if isinstance(model, Ensemble):
        raise InputError("several models have no units in common; load one of them")
    state = model.initial_state(1)
    indices = torch.from_numpy(charset.encode(text).astype(np.int64)).to(state.device)
    inputs = indices[:, None]
    if not len(inputs):
        empty = np.zeros((state.size(0), state.size(2), 0), np.float32)
        return empty, empty
    activations = model.activations(inputs, state)
    parts = model.gates(inputs, state, activations) if with_gates else (activations,)
    return tuple(part[:, :, 0].mT.cpu().numpy() for part in parts)
