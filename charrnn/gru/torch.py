"""The GRU by ``torch.nn.GRU``'s own kernels: cuDNN on a GPU, ATen's loop on a CPU.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

# Where the weights of a call are not one block, as with gathered inputs, cuDNN copies them first
# and says so at every call; here that is meant.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")


def unsupported(reset: str, gate: str, device: torch.device) -> str | None:
    """Why this backend cannot compute a variant on a device; None where it can."""
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
    """Run all layers over a window; arguments and results as in :mod:`charrnn.gru.reference`."""
    if not inputs.is_floating_point():
        if table is not None:
            inputs = F.embedding(inputs, table)
        else:
            # torch.nn.GRU takes no input gates, so layer 0 gets them through the identity: three
            # times the columns of a hidden layer, whatever the size of the vocabulary.
            weight_ih, weight_hh, bias_ih, bias_hh = weights[0]
            inputs = F.embedding(inputs, weight_ih.t())
            identity = torch.eye(weight_ih.size(0), dtype=inputs.dtype, device=inputs.device)
            weights = [(identity, weight_hh, bias_ih, bias_hh), *weights[1:]]
    flat = [tensor for layer in weights for tensor in layer]
    training = torch.is_grad_enabled() or dropout > 0
    return torch._VF.gru(
        inputs, state.contiguous(), flat, True, len(weights), dropout, training, False, False
    )
