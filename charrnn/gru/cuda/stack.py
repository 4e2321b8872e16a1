"""Layers by the persistent kernels: one launch a layer in each direction.

T time steps, B rows, P of them padded to sixteens, H hidden size, I input size, V vocabulary size,
L layers.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda import nvrtc
from charrnn.gru.cuda.plan import ROWS, Plan, kernels
from charrnn.gru.cuda.rows import empty, gather, index_of, mailbox, matmul, sum_rows


class Kept(NamedTuple):
    """What the forward pass of a layer leaves for backward.

    Attributes:
        x: (T, B, H) halves that came in, of layers above the first; mask: of the dropout on them.
        w_ih: (3H, I), halves above the first layer; w_hh: (3H, H), halves.
        states: (T + 1, P, H) halves, the first one given.
        saved: (T, P, H / 2, 4), eight halves: r, z, n, q of two units, in the kernels' own order.
        products: (T, P, H) halves, r h, with the reset before the product.
    """

    x: Tensor | None
    mask: Tensor | None
    w_ih: Tensor
    w_hh: Tensor
    states: Tensor
    saved: Tensor | None
    products: Tensor | None


class Stack(torch.autograd.Function):
    """All layers over a window: inputs (T, B, I) or indices (T, B), and a state (L, B, H), to
    outputs (T, B, H) and the final state."""

    @staticmethod
    @custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx, plan, inputs, table, state, dropout, training, *tensors):
        ctx.set_materialize_grads(False)
        training = training and any(ctx.needs_input_grad)
        layers = [tensors[i : i + 4] for i in range(0, len(tensors), 4)]
        final = torch.empty_like(state, memory_format=torch.contiguous_format)
        x, saved = None, []
        for i, (w_ih, *weights) in enumerate(layers):
            mask = None
            if i == 0:
                gates = input_gates(inputs, table, w_ih)
            else:
                if dropout:
                    x, mask = torch.native_dropout(x, dropout, True)
                w_ih = w_ih.half()
                gates = matmul(x.flatten(0, 1), w_ih.t()).view(*x.shape[:2], -1)
            last = i + 1 == len(layers)
            outputs, kept = run_forward(plan, gates, weights, state[i], final[i], training, last)
            if training:
                saved += kept._replace(x=x, mask=mask, w_ih=w_ih)
            x = kept.states[1:, : state.size(1)]
        if training:
            if not inputs.is_floating_point():
                # One out of range will be reported; backward must not follow it.
                size = layers[0][0].size(1) if table is None else len(table)
                inputs = inputs.clamp(0, size - 1)
            ctx.save_for_backward(inputs, table, *saved)
            ctx.plan, ctx.dropout = plan, dropout
        return outputs, final

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, d_outputs, d_final):
        plan, (inputs, table, *saved) = ctx.plan, ctx.saved_tensors
        fields = len(Kept._fields)
        layers = [Kept(*saved[i : i + fields]) for i in range(0, len(saved), fields)]
        size = (len(layers), inputs.size(1), plan.cut.hidden)
        d_y = dense(d_outputs, (len(inputs), *size[1:]), inputs.device)
        d_final = dense(d_final, size, inputs.device)
        d_state, grads = torch.empty_like(d_final), []
        d_inputs = d_table = None
        for i, layer in reversed([*enumerate(layers)]):
            scale = largest(d_y, d_final[i])
            d_gates = run_backward(plan, layer, d_y, d_final[i], d_state[i], scale)
            found = recurrent_gradients(plan, layer, d_gates)
            outer = d_gates if plan.cut.before else d_gates[..., plan.cut.hidden :]
            if i or inputs.is_floating_point():
                flat = outer[:, : inputs.size(1)].flatten(0, 1)  # rows that are there, r, z, n
                x = layer.x.flatten(0, 1) if i else inputs.flatten(0, 1)
                product = matmul if i else as_float
                d_w_ih = product(flat.t(), x)
                d_x = product(flat, layer.w_ih) if i or ctx.needs_input_grad[1] else None
                scaled = [*found, d_w_ih] + [d_x] * (d_x is not None)
                torch._foreach_mul_(scaled, scale[1])
                if i:
                    d_y = undrop(d_x.view(d_y.shape), layer.mask, ctx.dropout)
                elif d_x is not None:
                    d_inputs = d_x.view_as(inputs)
            else:
                torch._foreach_mul_(found, scale[1])
                count = layer.w_ih.size(1) if table is None else len(table)
                sums = sum_rows(outer, inputs, count, scale)
                d_w_ih = sums.t() if table is None else sums.t() @ table
                if table is not None and ctx.needs_input_grad[2]:
                    d_table = sums @ layer.w_ih
            d_w_hh, d_b_ih, d_b_hh = found
            grads = [d_w_ih, d_w_hh, d_b_ih, d_b_hh, *grads]
        return None, d_inputs, d_table, d_state, None, None, *grads


def input_gates(inputs: Tensor, table: Tensor | None, w_ih: Tensor) -> Tensor:
    """W_ih x of layer 0, (T, B, 3H); with indices it is made for V characters and gathered."""
    if inputs.is_floating_point():
        return F.linear(inputs, w_ih)
    return gather(w_ih.t() if table is None else F.linear(table, w_ih), inputs)


def run_forward(
    plan: Plan,
    gates: Tensor,
    weights: list[Tensor],
    state: Tensor,
    final: Tensor,
    training: bool,
    last: bool,
) -> tuple[Tensor | None, Kept]:
    """A layer from its input products (T, B, 3H) and its state (B, H); final (B, H) is written.

    Its outputs are made in float32, (T, B, H), where it is the last one.
    """
    steps, rows, _ = gates.shape
    hidden, wide = plan.cut.hidden, -(-rows // ROWS) * ROWS
    w_hh, b_ih, b_hh = (tensor.contiguous() for tensor in weights)
    w_hh, shared = w_hh.half(), not plan.cut.small
    states = mailbox(state, steps + 1, wide, hidden, fill=shared)
    if rows < wide:
        states[0].zero_()
    states[0, :rows].copy_(state)
    products = mailbox(state, steps, wide, hidden, fill=shared) if plan.cut.before else None
    saved = empty(state, steps, wide, hidden // 2, 4) if training else None
    outputs = empty(state, steps, rows, hidden) if last else None
    launch = plan.forward
    kernels(launch.cut, index_of(state.device)).launch(
        "gru_forward", (launch.grid,), gates.contiguous(), w_hh, b_ih, b_hh, state.contiguous(),
        states, products, outputs, saved, final, steps, rows, launch.pause, launch.ahead,
        nvrtc.status(), shared=launch.shared, cooperative=shared,
    )  # fmt: skip
    return outputs, Kept(None, None, w_hh, w_hh, states, saved, products)


def run_backward(
    plan: Plan, layer: Kept, d_y: Tensor, d_final: Tensor, d_state: Tensor, scale: Tensor
) -> Tensor:
    """Gradients at the gates' sums, halves times a power of two, (T, P, 4H) or (T, P, 3H).

    Columns are q, r, z, n, or with the reset before the product r, z, n; rows beyond B are zero.
    d_state (B, H) is written, and scale[1], one over that power of two.
    """
    steps, rows, hidden = d_y.shape
    columns = (3 if plan.cut.before else 4) * hidden
    shared = not plan.cut.small
    d_gates = mailbox(d_y, steps, layer.states.size(1), columns, fill=shared)
    launch = plan.backward
    kernels(launch.cut, index_of(d_y.device)).launch(
        "gru_backward", (launch.grid,), d_y, d_final, layer.w_hh.t().contiguous(), layer.saved,
        layer.states, d_gates, d_state, scale, steps, rows, launch.pause, launch.ahead,
        nvrtc.status(), shared=launch.shared, cooperative=shared,
    )  # fmt: skip
    return d_gates


def recurrent_gradients(plan: Plan, layer: Kept, d_gates: Tensor) -> list[Tensor]:
    """Those of W_hh, b_ih and b_hh, times the power of two."""
    hidden = plan.cut.hidden
    flat, before = d_gates.flatten(0, 1), layer.states[:-1].flatten(0, 1)
    sums = flat.sum(0, dtype=torch.float32)
    if plan.cut.before:
        gates = matmul(flat[:, : 2 * hidden].t(), before)
        candidate = matmul(flat[:, 2 * hidden :].t(), layer.products.flatten(0, 1))
        return [torch.cat([gates, candidate]), sums, sums.clone()]
    found = matmul(flat[:, : 3 * hidden].t(), before)  # q, r, z
    inside = torch.cat([sums[hidden : 3 * hidden], sums[:hidden]])
    return [torch.cat([found[hidden:], found[:hidden]]), sums[hidden:].clone(), inside]


def largest(*gradients: Tensor) -> Tensor:
    """Two numbers, of which the first is the largest absolute value."""
    scale = torch.empty(2, device=gradients[0].device)
    norms = [torch.linalg.vector_norm(g, torch.inf) for g in gradients]
    torch.maximum(*norms, out=scale[0])
    return scale


def dense(grad: Tensor | None, size: tuple[int, ...], device: torch.device) -> Tensor:
    """A gradient in float32, row-major; zeros where none came."""
    return torch.zeros(size, device=device) if grad is None else grad.float().contiguous()


def as_float(a: Tensor, b: Tensor) -> Tensor:
    """The product in float32, of numbers that a half may not hold."""
    return a.float() @ b


def undrop(grad: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """The gradient before dropout."""
    if mask is None:
        return grad
    return torch.ops.aten.native_dropout_backward(grad, mask, 1 / (1 - dropout))
