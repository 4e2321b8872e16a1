"""The GRU by our own kernels for NVIDIA GPUs, in ``csrc``: every variant.

B rows, H hidden size, L layers.

Two ways. The *persistent* one (:mod:`charrnn.gru.cuda.stack`) runs all steps of a layer in one
launch, with the recurrent weights kept on the chip; its products take halves, whose mantissa is
TF32's, and sum in float32; states and gates are float32. It computes where TF32 is allowed, as
``torch.nn.GRU`` takes it (``torch.backends.cudnn.allow_tf32``, true by default), and under
autocast, in bfloat16 too: states and recurrent weights lie in the range of a half, which holds them
eight times as exactly, and gradients travel scaled. The *exact* one
(:mod:`charrnn.gru.cuda.exact`), in float32 without TF32 and in float64, is a launch a step.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from charrnn.gru.cuda import exact, nvrtc, plan, rows
from charrnn.gru.cuda.plan import Plan
from charrnn.gru.cuda.stack import Stack

__all__ = ["find_plan", "forward", "unsupported", "why_not_auto"]


def unsupported(reset: str, gate: str, device: torch.device) -> str | None:
    """Why this backend cannot compute on a device; None where it can."""
    if device.type != "cuda":
        return "native runs on a CPU or an NVIDIA GPU"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    if torch.version.hip:
        return "native runs on a CPU or an NVIDIA GPU, and this one is AMD's"
    try:
        rows.kernels(rows.index_of(device))
    except nvrtc.Unavailable as error:
        return f"native cannot be built: {error}"
    return None


def find_plan(state: Tensor, reset: str, gate: str) -> Plan | str:
    """How the persistent kernels compute from a state (L, B, H), or why they do not."""
    if state.dtype == torch.float64:
        return "float64 is computed exactly"
    if low_type(state) is None and not torch.backends.cudnn.allow_tf32:
        return "torch.backends.cudnn.allow_tf32 is false"
    gpu = plan.card(rows.index_of(state.device))
    count, hidden = state.shape[1:]
    variant = (reset == "before", gate == "hard_sigmoid", gpu)
    return plan.find(hidden, plan.rows_at_once(hidden, count, *variant), *variant)


def low_type(state: Tensor) -> torch.dtype | None:
    """The 16-bit type that products take, under autocast or as the state has it; None without."""
    if torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda")
    return state.dtype if state.dtype in (torch.float16, torch.bfloat16) else None


def why_not_auto(device: torch.device, hidden: int, count: int | None) -> str | None:
    """Why auto takes cuDNN for B = count rows, where cuDNN can; None where our kernels are faster.

    The table is :func:`charrnn.gru.cuda.plan.why_not_auto`'s. In float32 without TF32 it is cuDNN.
    """
    low = torch.is_autocast_enabled("cuda")
    if not low and not torch.backends.cudnn.allow_tf32:
        return "torch.backends.cudnn.allow_tf32 is false"
    return plan.why_not_auto(hidden, count, plan.card(rows.index_of(device)), low)


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

    Results have the state's type. Raises IndexError or RuntimeError for what a kernel has found
    since the last call: an index out of range, a deadlock.
    """
    nvrtc.raise_failure()
    dtype, low = state.dtype, low_type(state)
    kept = dtype if dtype == torch.float64 else torch.float32
    found = find_plan(state, reset, gate)
    tensors = [tensor.to(kept) for layer in weights for tensor in layer]
    inputs = inputs.to(kept) if inputs.is_floating_point() else inputs.long()
    table, state = None if table is None else table.to(kept), state.to(kept)
    if isinstance(found, str):
        before, hard = reset == "before", gate == "hard_sigmoid"
        output, final = exact.layers(inputs, table, state, tensors, before, hard, dropout)
    else:
        hidden, wide = state.size(2), found.cut.hidden
        tensors = [pad(tensor, hidden, wide, i) for i, tensor in enumerate(tensors)]
        state = F.pad(state, (0, wide - hidden)) if wide > hidden else state
        gpu = plan.card(rows.index_of(state.device))
        variant = (found.cut.before, found.cut.hard, gpu)
        some, training = plan.rows_at_once(hidden, state.size(1), *variant), torch.is_grad_enabled()
        best = plan.find_pairs if len(weights) > 1 else plan.find
        parts = [
            Stack.apply(
                best(hidden, h.size(1), *variant), x, table, h, dropout, low, training, *tensors
            )
            for x, h in zip(inputs.split(some, 1), state.split(some, 1))
        ]
        output, final = parts[0] if len(parts) == 1 else (torch.cat(p, 1) for p in zip(*parts))
        if wide > hidden:
            output, final = output[..., :hidden], final[..., :hidden]
    return output.to(dtype), final.to(dtype)


def pad(tensor: Tensor, hidden: int, wide: int, i: int) -> Tensor:
    """The i-th of all weights with zeros for units that are not there, which then stay zero."""
    if wide == hidden:
        return tensor
    more = wide - hidden
    if tensor.dim() == 1:
        return F.pad(tensor.view(3, hidden), (0, more)).flatten()
    columns = 0 if i == 0 else more  # the first weight_ih takes what comes from outside
    return F.pad(tensor.reshape(3, hidden, -1), (0, columns, 0, more)).flatten(0, 1)
