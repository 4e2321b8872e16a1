"""Activations and gates of every unit along a text, as arrays.

L layers, H hidden size, T characters.
"""

import numpy as np
import torch
from torch import nn

from charrnn.data.charset import Charset
from charrnn.errors import InputError
from charrnn.models import contract
from charrnn.models.ensemble import Ensemble


def compute_activations(model: nn.Module, charset: Charset, text: str | bytes) -> np.ndarray:
    """Compute every unit's output after every character, from a zero state.

    Returns:
        (L, H, T); of a GRU, between -1 and 1.

    Raises:
        InputError: the model is an ensemble, or has no method ``activations``.
    """
    return compute_signals(model, charset, text, with_gates=False)[0]


def compute_gates(
    model: nn.Module, charset: Charset, text: str | bytes
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the reset and the update gate of every unit at every character, each (L, H, T).

    Raises:
        InputError: the model is an ensemble, or has no method ``gates``.
    """
    return compute_signals(model, charset, text)[1:]


@torch.inference_mode()
def compute_signals(
    model: nn.Module, charset: Charset, text: str | bytes, with_gates: bool = True
) -> tuple[np.ndarray, ...]:
    """Compute activations, and with them the reset and the update gates, in one pass."""
    if isinstance(model, Ensemble):
        raise InputError("several models have no units in common; load one of them")
    state = contract.initial_state(model, 1)
    indices = charset.encode(text).astype(np.int64)
    length = len(indices)
    if not length:
        indices = np.zeros(1, np.int64)  # for the shape of the result
    inputs = torch.from_numpy(indices).to(contract.device_of(model))[:, None]
    parts = (contract.activations(model, inputs, state),)
    if with_gates:
        parts += contract.gates(model, inputs, state, parts[0])
    arrays = (part[:, :length, 0].mT.cpu() for part in parts)
    # NumPy has no bfloat16.
    return tuple((a.float() if a.dtype == torch.bfloat16 else a).numpy() for a in arrays)
