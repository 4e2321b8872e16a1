"""Layers in float32 without TF32, or in float64: a kernel launched for each step.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda import nvrtc
from charrnn.gru.cuda.rows import Gather, empty, index_of

TILE = 16
"""Units and rows of a thread block, as in ``step.cu``."""


def kernels(dtype: torch.dtype, hard: bool, index: int):
    """Those of ``step.cu`` for a type of numbers, on the GPU of an index."""
    real = "double" if dtype == torch.float64 else "float"
    return nvrtc.module(("step.cu",), (("REAL", real), ("HARD", int(hard))), index)


def layers(
    inputs: Tensor,
    table: Tensor | None,
    state: Tensor,
    tensors: list[Tensor],
    before: bool,
    hard: bool,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """All layers over a window; arguments as in :mod:`charrnn.gru.reference`, weights in a row."""
    device_type = state.device.type
    final = []
    with torch.autocast(device_type, enabled=False):
        for i in range(0, len(tensors), 4):
            w_ih, *weights = tensors[i : i + 4]
            if i and dropout:
                inputs = F.dropout(inputs, dropout)
            if inputs.is_floating_point():
                gates = F.linear(inputs, w_ih)
            else:
                gates = Gather.apply(w_ih.t() if table is None else F.linear(table, w_ih), inputs)
            inputs = Layer.apply(gates, state[i // 4], *weights, before, hard)
            final.append(inputs[-1])
    return inputs, torch.stack(final)


class Layer(torch.autograd.Function):
    """One layer from its input products (T, B, 3H) and its state (B, H) to outputs (T, B, H)."""

    @staticmethod
    @custom_fwd(device_type="cuda")
    def forward(ctx, gates, state, w_hh, b_ih, b_hh, before, hard):
        steps, rows, _ = gates.shape
        hidden = state.size(1)
        states = empty(state, steps + 1, rows, hidden)
        states[0].copy_(state)
        saved = empty(state, steps, rows, 4, hidden)
        w_hh, bias = w_hh.contiguous(), torch.stack([b_ih, b_hh])
        args = (gates.contiguous(), bias, w_hh, states, saved, rows, hidden)
        module = kernels(state.dtype, hard, index_of(state.device))
        names = (
            ("step_gates_before", "step_candidate_before") if before else ("step_forward_after",)
        )
        module.launch(names, grid(rows, hidden), *args, steps=range(steps))
        ctx.save_for_backward(w_hh, states, saved)
        ctx.before, ctx.hard = before, hard
        return states[1:]

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, grad):
        w_hh, states, saved = ctx.saved_tensors
        steps, rows, _, hidden = saved.shape
        d_gates, carry = empty(grad, *saved.shape), empty(grad, rows, hidden)
        d_state, zero = empty(carry, rows, hidden), torch.zeros_like(carry)
        args = (grad.contiguous(), zero, w_hh, states, saved, d_gates, carry, d_state)
        module = kernels(grad.dtype, ctx.hard, index_of(grad.device))
        two = ("step_backward_before", "step_reset_before")
        names = two if ctx.before else ("step_backward_after",)
        module.launch(
            names, grid(rows, hidden), *args, steps, rows, hidden, steps=range(steps - 1, -2, -1)
        )
        q, r, z, n = d_gates.flatten(0, 1).unbind(1)
        before = states[:-1].flatten(0, 1)
        outside = torch.cat([r, z, n], 1)
        inner = n if ctx.before else q
        d_w_hh = torch.cat(
            [
                torch.cat([r, z], 1).t() @ before,
                inner.t() @ (saved[:, :, 3].flatten(0, 1) if ctx.before else before),
            ]
        )
        d_bias = outside.sum(0)
        inside = torch.cat([d_bias[: 2 * hidden], inner.sum(0)])
        d_gates = outside.view(steps, rows, 3 * hidden)
        return d_gates, d_state, d_w_hh, d_bias, inside, None, None


def grid(rows: int, hidden: int) -> tuple[int, int]:
    """Thread blocks over units and rows."""
    return -(-hidden // TILE), -(-rows // TILE)
