"""The GRU with the kernels of ``torch.nn.GRU``: cuDNN on a GPU, ATen's loop on a CPU.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

# If the weights are not one contiguous block, as with gathered inputs, cuDNN copies them and warns
# at every call; here this is intended.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")


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
    """
    if state.device.type not in ("cpu", "cuda"):
        return _forward(inputs, table, state, weights, dropout)
    with torch.autocast(state.device.type, enabled=False):
        return _forward(inputs, table, state, weights, dropout)


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
