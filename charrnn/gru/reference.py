"""The GRU as a plain loop over time: every variant on every device; the others are tested on it.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.

h' = (1 - z) n + z h with gates stacked r, z, n as in ``torch.nn.GRU`` and

- reset="after": n = tanh(W_in x + b_in + r (W_hn h + b_hn)), the form of cuDNN;
- reset="before": n = tanh(W_in x + b_in + W_hn (r h) + b_hn), Cho et al. 2014, arXiv:1406.1078.

The gate is the logistic function or clip(0.2 a + 0.5, 0, 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def unsupported(reset: str, gate: str, device: torch.device) -> str | None:
    """Return why this backend cannot compute a variant on a device; None if it can."""
    return None


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
    """Run all layers over a window.

    Args:
        inputs: (T, B, I) features, or (T, B) int64 indices.
        table: with indices, the features of every index, (V, I); None means one-hot vectors, so
            that layer 0 gathers columns of its weight.
        state: (L, B, H).
        weights: for each layer weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H), bias_hh (3H).
        dropout: probability of a zero between layers; 0 outside training.

    Returns:
        The last layer's output (T, B, H) and the final state (L, B, H).
    """
    final = []
    for layer, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(weights):
        if layer:
            inputs = F.dropout(inputs, dropout, training=dropout > 0)
        gates = input_gates(inputs, table, weight_ih, bias_ih)
        inputs = run_layer(gates, state[layer], weight_hh, bias_hh, reset, gate)
        final.append(inputs[-1])
    return inputs, torch.stack(final)


def input_gates(inputs: Tensor, table: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """Return W_ih x + b_ih of a window, (T, B, 3H); inputs and table as in :func:`forward`."""
    if inputs.is_floating_point():
        return F.linear(inputs, weight, bias)
    if table is None:
        return F.embedding(inputs, weight.t()) + bias
    return F.embedding(inputs, F.linear(table, weight, bias))


def run_layer(
    gates: Tensor, h: Tensor, weight: Tensor, bias: Tensor, reset: str, gate: str
) -> Tensor:
    """Return the outputs (T, B, H) of a layer from its input gates (T, B, 3H) and state (B, H)."""
    squash = torch.sigmoid if gate == "sigmoid" else hard_sigmoid
    weight_rz, weight_n = weight.split([2 * h.size(1), h.size(1)])
    bias_rz, bias_n = bias.split([2 * h.size(1), h.size(1)])
    outputs = []
    for x_rz, x_n in zip(*gates.split([2 * h.size(1), h.size(1)], dim=2)):
        r, z = squash(x_rz + F.linear(h, weight_rz, bias_rz)).chunk(2, dim=1)
        if reset == "after":
            n = torch.tanh(x_n + r * F.linear(h, weight_n, bias_n))
        else:
            n = torch.tanh(x_n + F.linear(r * h, weight_n, bias_n))
        h = (1 - z) * n + z * h
        outputs.append(h)
    return torch.stack(outputs)


def hard_sigmoid(a: Tensor) -> Tensor:
    """Return clip(0.2 a + 0.5, 0, 1); the slope is 0.2 in the open interval and 0 outside."""
    return torch.clamp(0.2 * a + 0.5, 0.0, 1.0)
