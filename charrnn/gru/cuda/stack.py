"""Layers by the persistent kernels, in pairs, which run concurrently where both fit on the GPU.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.

The steps of a pair of layers are cut into spans. The upper layer computes a span, with its input
product, while the lower one computes the next; backward, the lower one follows the upper one. Where
only one fits there is one span, and what surrounds its kernel runs beside the other's. Each layer
has a lane (:mod:`charrnn.gru.cuda.lanes`), where a launch waits only for work that was asked for
earlier: the span before of the same layer, the same span of the other one. Nothing can deadlock: a
kernel that runs waits for nothing but its own blocks, which all fit on the GPU beside those of the
other lane (:func:`charrnn.gru.cuda.plan.find_pairs`), and other work comes to its end by itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda.lanes import Lanes
from charrnn.gru.cuda.layer import Backward, Forward, Kept
from charrnn.gru.cuda.many import multiply_turned, to_halves
from charrnn.gru.cuda.plan import Plan
from charrnn.gru.cuda.rows import gather, largest, matmul, one_hot, sum_rows


class Stack(torch.autograd.Function):
    """All layers over a window: inputs (T, B, I) or indices (T, B), and a state (L, B, H), to
    outputs (T, B, H) and the final state."""

    @staticmethod
    @custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx, plan, inputs, table, state, dropout, low, training, *tensors):
        ctx.set_materialize_grads(False)
        training = training and any(ctx.needs_input_grad)
        layers = [tensors[i : i + 4] for i in range(0, len(tensors), 4)]
        final = torch.empty_like(state, memory_format=torch.contiguous_format)
        (steps, rows), below, kept, halves, d_gates = inputs.shape[:2], None, [], None, []
        for group in plan.groups(len(layers)):
            # Lanes first: what the names below held may be given to others once lane 1 has waited.
            lanes, runs, ready, done, held = Lanes(inputs.device), [], [], [], []
            spans = plan.spans(steps, len(group) if lanes.both else 1)
            with lanes.on(1):  # beside the inputs of the lower layer
                halves = halves or Halves(layers, training)
                for i in group:
                    last = i + 1 == len(layers)
                    w = halves.w_hh[i], *layers[i][2:]
                    runs.append(Forward(plan, w, state[i], final[i], steps, training, last))
                    ready.append(lanes.mark(1))
            if not group[0]:
                gates, index = input_gates(plan, inputs, table, layers[0][0], low)
            lanes.wait(0, ready[0])
            for lane, (i, run) in enumerate(zip(group, runs)):
                with lanes.on(lane):
                    w_ih, marks, dropped = halves.w_ih[i], [], []
                    for k, span in enumerate(spans):
                        if lane:
                            lanes.wait(lane, done[k])
                        if i:
                            x, mask = below[span], None
                            if dropout:
                                x, mask = torch.native_dropout(x, dropout, True)
                                dropped.append((x, mask))
                            made = matmul(x.flatten(0, 1), w_ih.t()).view(*x.shape[:2], -1)
                            held.append(made)
                            run(made, None, span)
                        elif index is None:
                            run(gates[span], None, span)
                        else:
                            run(gates, index[span], span)
                        marks.append(lanes.mark(lane))
                    x, mask = below if i else None, None
                    if dropped:
                        x, mask = (torch.cat(parts) for parts in zip(*dropped))
                if training:
                    kept += run.kept(x, mask, w_ih, halves.turned[i])
                    d_gates.append(run.d_gates)
                below, done = run.states[1:, :rows], marks
            lanes.join()
        if training:
            ctx.save_for_backward(inputs, table, *kept)
            ctx.plan, ctx.dropout, ctx.d_gates = plan, dropout, d_gates
        return run.outputs, final

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, d_outputs, d_final):
        plan, dropout, (inputs, table, *saved) = ctx.plan, ctx.dropout, ctx.saved_tensors
        fields = len(Kept._fields)
        layers = [Kept(*saved[i : i + fields]) for i in range(0, len(saved), fields)]
        (steps, rows), hidden = inputs.shape[:2], plan.cut.hidden
        d_gates = ctx.d_gates or [None] * len(layers)
        ctx.d_gates = None  # full now: a second backward makes others
        d_final = None if d_final is None else dense(d_final)
        if d_outputs is None:
            d_y = torch.zeros(steps, rows, hidden, device=inputs.device)
        else:
            d_y = dense(d_outputs)
        d_state = torch.empty(len(layers), rows, hidden, device=inputs.device)
        indices, size = not inputs.is_floating_point(), 0
        if indices:
            size = layers[0].w_ih.size(1) if table is None else len(table)
        run, factor, grads = None, None, []  # the gradient at outputs is factor times d_y
        for group in reversed(plan.groups(len(layers))):
            if run is not None:
                d_y, factor = input_gradient(run, rows, dropout), run.scale[1:]
            lanes, runs, ready, done, held = Lanes(inputs.device), [], [], [], []
            scale = torch.empty(2, device=inputs.device)
            spans = plan.spans(steps, len(group) if lanes.both else 1)[::-1]
            with lanes.on(1):
                for i in reversed(group):
                    last = None if d_final is None else d_final[i]
                    given = layers[i], d_gates[i], last, d_state[i], scale, len(spans)
                    runs.append(Backward(plan, *given))
                    ready.append(lanes.mark(1))
                if indices and not group[0]:  # what the sums below take, beside the kernels
                    hot = one_hot(inputs, layers[0].states.size(1), size)
            finals = None if d_final is None else d_final[group[0] : group[-1] + 1]
            largest(scale, d_y, factor, finals)
            lanes.wait(0, ready[0])
            for lane, run in enumerate(runs):
                with lanes.on(lane):
                    marks = []
                    for k, span in enumerate(spans):
                        if lane:
                            lanes.wait(lane, done[k])
                            held.append(input_gradient(runs[0], rows, dropout, span))
                            run(held[-1], scale[1:], span)
                        else:
                            run(d_y[span], factor, span)
                        marks.append(lanes.mark(lane))
                done = marks
            for run, i in zip(runs, reversed(group)):
                if run is runs[-1]:  # what the upper layer still needs runs beside the lower one
                    lanes.join()
                if i:
                    grads = [*weight_gradients(run, run.kept.x.flatten(0, 1), matmul), *grads]
        d_inputs = d_table = None
        if not indices:
            outer, flat = run.outer(rows), inputs.flatten(0, 1)
            grads = [*weight_gradients(run, flat, as_float), *grads]
            if ctx.needs_input_grad[1]:
                d_inputs = (as_float(outer, layers[0].w_ih) * scale[1]).view_as(inputs)
        else:
            w_ih, gates, lanes = layers[0].w_ih, run.outer_gates(), Lanes(inputs.device)
            with lanes.on(1):
                found = weight_gradients(run)
            sums = sum_rows(gates, inputs, size, scale, hot)
            summed = lanes.mark(0)
            if table is not None and ctx.needs_input_grad[2]:
                d_table = sums @ w_ih
            with lanes.on(1):
                lanes.wait(1, summed)
                d_w_ih = sums.t() if table is None else sums.t() @ table
            lanes.join()
            grads = [d_w_ih, *found, *grads]
        return None, d_inputs, d_table, d_state, None, None, None, *grads


class Halves:
    """Weights of layers in half precision: W_ih of those above the first, W_hh, its transpose."""

    def __init__(self, layers: list[list[Tensor]], training: bool):
        above = [layer[0] for layer in layers[1:]]
        recurrent = [layer[1] for layer in layers]
        turned = [False] * len(above) + [training] * len(recurrent)
        made, turned = to_halves(above + recurrent, turned)
        self.w_ih = [layers[0][0], *made[: len(above)]]
        self.w_hh, self.turned = made[len(above) :], turned[len(above) :]


def input_gates(
    plan: Plan, inputs: Tensor, table: Tensor | None, w_ih: Tensor, low: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    """W_ih x of layer 0, (T, B, 3H), and None; or for V characters, (V + 1, 3H), and indices.

    Those are (T, B), and the last row is for wrong ones, NaN. The product takes operands of the
    type low if given.
    """
    if inputs.is_floating_point():
        if low is None:
            return F.linear(inputs, w_ih), None
        flat = inputs.flatten(0, 1).to(low)
        return matmul(flat, w_ih.to(low).t()).view(*inputs.shape[:2], -1), None
    vocab = w_ih.size(1) if table is None else len(table)
    made = torch.empty(vocab + 1, len(w_ih), device=w_ih.device)
    made[vocab].fill_(torch.nan)
    product = made[:vocab]
    if table is None:
        product.copy_(w_ih.t())
    elif low is None:
        torch.mm(table, w_ih.t(), out=product)
    else:
        matmul(table.to(low), w_ih.to(low).t(), product)
    if plan.cut.small:
        return gather(product, inputs), None
    return made, inputs.contiguous()


def input_gradient(run: Backward, rows: int, dropout: float, span: slice = slice(None)) -> Tensor:
    """The gradient at a span of a layer's inputs, (., B, I), times its power of two."""
    mask = run.kept.mask
    grad = matmul(run.outer(rows, span), run.kept.w_ih).view(-1, rows, run.hidden)
    if mask is None:
        return grad
    return torch.ops.aten.native_dropout_backward(grad, mask[span], 1 / (1 - dropout))


def weight_gradients(run: Backward, x: Tensor | None = None, product=None) -> list[Tensor]:
    """Those of W_ih, W_hh, b_ih and b_hh; without inputs x (N, I) and their product, the others."""
    hidden, (d_w_hh, sums) = run.hidden, run.products()
    found = [] if x is None else [product(run.outer(len(x) // len(run.d_gates)).t(), x)]
    # The columns q, r, z of W_hh and b_hh become r, z, q.
    turn = 0 if run.before else hidden
    return multiply_turned(
        [*found, d_w_hh],
        [*(None for _ in found), turn * hidden or None],
        run.scale[1:],
        [(sums[:, -3 * hidden :], 0), (sums[:, : 3 * hidden], turn)],
    )


def dense(grad: Tensor) -> Tensor:
    """A gradient in float32, row-major, and where the kernels' loads of pairs may begin."""
    grad = grad.float().contiguous()
    return grad.clone() if grad.data_ptr() % 16 else grad


def as_float(a: Tensor, b: Tensor) -> Tensor:
    """The product in float32, of numbers that a half may not hold."""
    return a.float() @ b
