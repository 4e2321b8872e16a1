"""The GRU with the kernels of ``torch.nn.GRU``: cuDNN on a GPU, ATen's loop on a CPU.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from charrnn.gru.halves import FromHalf, ToHalf

# If the weights are not one contiguous block, as with gathered inputs, cuDNN copies them and warns
# at every call; here this is intended.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")

HALVES_ABOVE = 1024
"""The largest hidden size that is not computed in float16 under autocast on a GPU."""


def unsupported(reset: str, gate: str, device: torch.device) -> str | None:
    """Return why this backend cannot compute a variant on a device; None if it can."""
    if reset == "after" and gate == "sigmoid":
        return None
    return "torch.nn.GRU computes reset=after with gate=sigmoid only"


def forward(
    inputs: Tensor,
    table: Tensor | None,
    state: Tensor,
    weights: list[tuple[Tensor, Tensor, Tensor, Tensor]],
    *,
    reset: str,
    gate: str,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Run all layers over a window; arguments and results as in :mod:`charrnn.gru.reference`.

    In the state's own type, autocast or not: under autocast cuDNN would keep the state in 16 bits
    between the steps: in bfloat16 that cost 0.46 nats after 300 windows (H 1024, L 2, B 256, H100).
    Large layers on a GPU take float16 under autocast, with bfloat16 too, since a half holds a state
    eight times as exactly: see :func:`takes_halves`.
    """
    if state.device.type not in ("cpu", "cuda"):
        return _forward(inputs, table, state, weights, dropout)
    low = takes_halves(state)
    with torch.autocast(state.device.type, enabled=False):
        if low:
            return in_halves(inputs, table, state, weights, dropout)
        return _forward(inputs, table, state, weights, dropout)


def takes_halves(state: Tensor) -> bool:
    """Whether layers with a state (L, B, H) are computed in float16; results are float32.

    Of smaller ones cuDNN computes few in float32 as fast, and native the others faster. At H 2048,
    L 2, B 64 a training step took 9.6 ms in place of 17.2 (torch.nn.GRU as a CUDA graph, H100).
    """
    large = state.is_cuda and state.size(2) > HALVES_ABOVE
    return large and state.dtype == torch.float32 and torch.is_autocast_enabled("cuda")


def in_halves(inputs, table, state, weights, dropout):
    """As :func:`_forward`, in float16 with float32 arguments, results and gradients."""
    scale, features = state.new_empty(2), inputs.is_floating_point()
    first = [inputs] if features else [table] * (table is not None)
    flat = [tensor for layer in weights for tensor in layer]
    state, *halves = ToHalf.apply(scale, state, *flat, *first)
    weights = [tuple(halves[i : i + 4]) for i in range(0, len(flat), 4)]
    first = halves[len(flat) :]
    inputs, table = (first[0], table) if features else (inputs, first[0] if first else None)
    return FromHalf.apply(scale, *_forward(inputs, table, state, weights, dropout))


def _forward(inputs, table, state, weights, dropout):
    inputs = inputs.to(state.dtype) if inputs.is_floating_point() else inputs
    table = None if table is None else table.to(state.dtype)
    if not inputs.is_floating_point():
        if table is not None:
            inputs = F.embedding(inputs, table)
        else:
            # torch.nn.GRU does not accept input gates, so layer 0 multiplies them by the identity:
            # three times the columns of a hidden layer, independent of the vocabulary size.
            weight_ih, weight_hh, bias_ih, bias_hh = weights[0]
            inputs = F.embedding(inputs, weight_ih.t())
            identity = torch.eye(weight_ih.size(0), dtype=inputs.dtype, device=inputs.device)
            weights = [(identity, weight_hh, bias_ih, bias_hh), *weights[1:]]
    training = torch.is_grad_enabled() or dropout > 0
    # cuDNN's own dropout cannot be captured in a CUDA graph, so layers are separate then.
    separate = dropout > 0 and state.is_cuda
    final = []
    for first in range(0, len(weights), 1 if separate else len(weights)):
        some = weights[first : first + 1] if separate else weights
        h = state[first : first + len(some)].contiguous()
        if first:
            inputs = F.dropout(inputs, dropout)
        flat = [tensor for layer in some for tensor in layer]
        inputs, h = torch._VF.gru(
            inputs, h, flat, True, len(some), 0.0 if separate else dropout, training, False, False
        )
        final.append(h)
    return inputs, torch.cat(final) if separate else h
