"""The GRU by our own kernels for the CPU, in ``csrc/gru.cpp``: every variant.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.

The products that stand outside the recurrence (of the inputs and of the weights' gradients) are one
matrix product each over all T B characters; what is inside it is one call a layer and direction.
Inputs that are indices are folded: W_ih x is computed for V rows, and gathered.
"""

import ctypes
import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru import build

OUT_OF_RANGE, NO_MEMORY = 1, 2
"""What the functions of ``csrc`` return besides 0."""


def unsupported(reset: str, gate: str, device: torch.device) -> str | None:
    """Why this backend cannot compute a variant on a device; None where it can."""
    if device.type != "cpu":
        return "native runs on a CPU"
    try:
        build.library()
    except build.BuildError as error:
        return f"native cannot be built: {error}"
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
    """Run all layers over a window; arguments and results as in :mod:`charrnn.gru.reference`.

    Numbers are float64 where the state is, float32 otherwise; results have the state's type.
    """
    dtype = state.dtype
    kept = dtype if dtype == torch.float64 else torch.float32
    variant = (reset == "before", gate == "hard_sigmoid", torch.is_grad_enabled())
    inputs = inputs.to(kept) if inputs.is_floating_point() else inputs
    final = []
    for layer, tensors in enumerate(weights):
        if layer and dropout:
            inputs = F.dropout(inputs, dropout)
        first = [None if x is None else x.to(kept) for x in (table, state[layer], *tensors)]
        inputs = Layer.apply(inputs, *first, *variant)
        table = None
        final.append(inputs[-1])
    return inputs.to(dtype), torch.stack(final).to(dtype)


class Layer(torch.autograd.Function):
    """One layer over a window: (T, B, I) or indices (T, B), and a state (B, H), to (T, B, H)."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, inputs, table, state, w_ih, w_hh, b_ih, b_hh, before, hard, training):
        steps, rows, hidden = *inputs.shape[:2], w_hh.size(1)
        training = training and any(ctx.needs_input_grad)
        index, source = (None, inputs) if inputs.is_floating_point() else (inputs, table)
        if source is None:
            gates = w_ih.t().contiguous()
        else:
            gates = source.reshape(-1, source.size(-1)) @ w_ih.t()
        if index is not None:
            index = index.long().contiguous()
        states = empty(state, steps + 1, rows, hidden)
        states[0] = state
        saved = empty(state, steps, rows, 4 * hidden) if training else None
        w_hh = w_hh.contiguous()
        call(
            "gru_forward", gates, index, gates.size(0), w_hh, b_ih.contiguous(),
            b_hh.contiguous(), states, saved, steps, rows, hidden, before, hard,
        )  # fmt: skip
        if training:
            ctx.save_for_backward(index, source, w_ih, w_hh, states, saved)
            ctx.variant, ctx.shape = (before, hard), inputs.shape
        return states[1:]

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx, grad):
        index, source, w_ih, w_hh, states, saved = ctx.saved_tensors
        before, hard = ctx.variant
        steps, rows, hidden = grad.shape
        width = (3 if before else 4) * hidden
        grads = empty(grad, steps * rows, width)
        d_state, d_bias = empty(grad, rows, hidden), empty(grad, width)
        call(
            "gru_backward", grad.contiguous(), w_hh, states, saved, grads, d_state, d_bias,
            steps, rows, hidden, before, hard,
        )  # fmt: skip
        outer = grads[:, -3 * hidden :]  # r z n, of the input's product
        needs = ctx.needs_input_grad
        d_inputs = d_table = d_w_ih = d_w_hh = None
        if index is None:
            if needs[0]:
                d_inputs = (outer @ w_ih).view(ctx.shape)
        elif needs[1] or needs[3]:
            outer = sum_by_index(outer, index, w_ih.size(1) if source is None else source.size(0))
            if needs[1]:
                d_table = outer @ w_ih
        if needs[3]:
            d_w_ih = outer.t()
            if source is not None:
                d_w_ih = d_w_ih @ source.reshape(-1, source.size(-1))
        if needs[4]:
            past = states[:-1].view(steps * rows, hidden)
            d_w_hh = empty(grad, 3 * hidden, hidden)
            if before:
                torch.mm(grads[:, : 2 * hidden].t(), past, out=d_w_hh[: 2 * hidden])
                reset = saved.view(steps * rows, 4 * hidden)[:, 3 * hidden :]
                torch.mm(grads[:, 2 * hidden :].t(), reset, out=d_w_hh[2 * hidden :])
            else:
                d_w_hh = (grads[:, : 3 * hidden].t() @ past).roll(-hidden, 0)
        d_b_ih = d_bias[-3 * hidden :]
        d_b_hh = d_b_ih.clone() if before else d_bias[: 3 * hidden].roll(-hidden)
        return (
            d_inputs, d_table, d_state, d_w_ih, d_w_hh, d_b_ih, d_b_hh, None, None, None
        )  # fmt: skip


def sum_by_index(grads: Tensor, index: Tensor, size: int) -> Tensor:
    """(size, C), where row i is the sum of those rows of grads (N, C) whose index is i."""
    sums = empty(grads, size, grads.size(1))
    call(
        "sum_by_index", sums, grads, index, index.numel(), grads.stride(0), grads.size(1), size,
    )  # fmt: skip
    return sums


def empty(like: Tensor, *size: int) -> Tensor:
    """A tensor that a kernel fills."""
    return torch.empty(size, dtype=like.dtype)


def call(name: str, *args: Tensor | int | None) -> None:
    """Call a function of ``csrc`` in the type of its first tensor, on torch's threads.

    Raises IndexError for an index out of range, MemoryError where a kernel found no memory.
    """
    pointers = [a.data_ptr() if isinstance(a, Tensor) else a for a in args]
    code = function(name, args[0].dtype)(*pointers, torch.get_num_threads())
    if code == OUT_OF_RANGE:
        raise IndexError("an input or target is no index of the vocabulary")
    if code == NO_MEMORY:
        raise MemoryError(f"no memory for {name}")


ARGUMENTS = {
    # p a pointer, l a long, i an int, d a double, as in the sources.
    "gru_forward": "pplpppppllliii",
    "gru_backward": "pppppppllliii",
    "sum_by_index": "ppplllli",
    "cross_entropy": "ppppdplli",
}


@functools.cache
def function(name: str, dtype: torch.dtype):
    """A function of ``csrc`` for a type of numbers."""
    made = getattr(build.library(), f"{name}_{'f64' if dtype == torch.float64 else 'f32'}")
    types = {"p": ctypes.c_void_p, "l": ctypes.c_long, "i": ctypes.c_int, "d": ctypes.c_double}
    made.argtypes = [types[letter] for letter in ARGUMENTS[name]]
    return made
