"""What the units of a model hold along a text: activations and gates, as arrays.

L layers, H hidden size, T characters.
"""

import numpy as np
import torch
from torch import nn

from charrnn.data.charset import Charset
from charrnn.errors import InputError
from charrnn.models.ensemble import Ensemble


def activations(model: nn.Module, charset: Charset, text: str | bytes) -> np.ndarray:
    """Every unit after every character, (L, H, T), between -1 and 1, read from a zero state."""
    return _inside(model, charset, text, with_gates=False)[0]


def gates(model: nn.Module, charset: Charset, text: str | bytes) -> tuple[np.ndarray, np.ndarray]:
    """The reset and the update gate of every unit at every character, each (L, H, T)."""
    return _inside(model, charset, text, with_gates=True)


@torch.inference_mode()
def _inside(model, charset, text, with_gates: bool) -> tuple[np.ndarray, ...]:
    if isinstance(model, Ensemble):
        raise InputError("several models have no units in common; load one of them")
    state = model.initial_state(1)
    indices = torch.from_numpy(charset.encode(text).astype(np.int64)).to(state.device)
    inputs = indices[:, None]
    if not len(inputs):
        nothing = np.zeros((state.size(0), state.size(2), 0), np.float32)
        return nothing, nothing
    found = model.activations(inputs, state)
    parts = model.gates(inputs, state, found) if with_gates else (found,)
    return tuple(part[:, :, 0].mT.cpu().numpy() for part in parts)
