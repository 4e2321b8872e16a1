"""The GRU with this project's C++ kernels for CPUs, in ``csrc``: every variant.

On a GPU it hands on to :mod:`charrnn.gru.cuda`.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.

A layer is one call in each direction, including the products with its inputs and all gradients.
If inputs are indices, W_ih x is computed for the V rows of the table and gathered.
"""

import ctypes
import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru import build, cuda

OUT_OF_RANGE, NO_MEMORY, NOT_FINITE = 1, 2, 3
"""Error codes of the functions of ``csrc``."""


def unsupported(reset: str, gate: str, device: torch.device) -> str | None:
    """Return why this backend cannot compute a variant on a device; None if it can."""
    if device.type != "cpu":
        return cuda.unsupported(reset, gate, device)
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

    Computes in float64 if the state is float64, else in float32; results have the state's type.
    """
    if state.is_cuda:
        settings = {"reset": reset, "gate": gate, "dropout": dropout}
        return cuda.forward(inputs, table, state, weights, **settings)
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
        training = training and any(ctx.needs_input_grad)
        w_ih, w_hh = w_ih.contiguous(), w_hh.contiguous()
        x = index = gates = None
        if inputs.is_floating_point():
            x = inputs.contiguous()
        else:
            index = inputs.long().contiguous()
            gates = w_ih.t().contiguous() if table is None else table @ w_ih.t()
        sizes = (*inputs.shape[:2], w_hh.size(1), w_ih.size(1))
        steps, rows, hidden, _ = sizes
        states = empty(state, steps + 1, rows, hidden)
        states[0] = state
        saved = empty(state, steps, rows, 4 * hidden) if training else None
        call(
            "gru_forward", x, gates, index, len(gates) if x is None else 0, w_ih, w_hh,
            b_ih.contiguous(), b_hh.contiguous(), states, saved, *sizes, before, hard,
        )  # fmt: skip
        if training:
            ctx.save_for_backward(x, table, index, w_ih, w_hh, states, saved)
            ctx.sizes, ctx.variant = sizes, (before, hard)
        return states[1:]

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx, grad):
        x, table, index, w_ih, w_hh, states, saved = ctx.saved_tensors
        steps, rows, hidden, features = ctx.sizes
        before = ctx.variant[0]
        need_x, need_table, _, need_w_ih, need_w_hh, *_ = ctx.needs_input_grad
        folded = index is not None and (need_w_ih or need_table)
        size = 0 if index is None else features if table is None else len(table)
        d_x = empty(grad, steps, rows, features) if need_x else None
        d_state, d_bias = empty(grad, rows, hidden), empty(grad, 3 if before else 4, hidden)
        d_w_hh = empty(grad, 3 * hidden, hidden) if need_w_hh else None
        d_w_ih = empty(grad, 3 * hidden, features) if need_w_ih and index is None else None
        d_gates = empty(grad, size, 3 * hidden) if folded else None
        call(
            "gru_backward", grad.contiguous(), x, index, size, w_ih, w_hh, states, saved, d_x,
            d_state, d_bias, d_w_hh, d_w_ih, d_gates, *ctx.sizes, *ctx.variant,
        )  # fmt: skip
        if folded and need_w_ih:
            d_w_ih = d_gates.t() if table is None else d_gates.t() @ table
        d_table = d_gates @ w_ih if need_table else None
        # Of the sums inside the hidden product q comes first; outside it n comes last.
        inside = d_bias if before else d_bias[[1, 2, 0]]
        return (
            d_x, d_table, d_state, d_w_ih, d_w_hh, d_bias[-3:].flatten(), inside.flatten(),
            None, None, None,
        )  # fmt: skip


def empty(like: Tensor, *size: int) -> Tensor:
    """Return an uninitialized tensor for a kernel to fill."""
    return torch.empty(size, dtype=like.dtype)


def call(name: str, *args: Tensor | int | None) -> None:
    """Call a function of ``csrc`` for the type of its first tensor, on torch's threads.

    Raises:
        IndexError: an index is out of range.
        MemoryError: a kernel could not allocate memory.
        FloatingPointError: logits are not finite.
    """
    pointers = [a.data_ptr() if isinstance(a, Tensor) else a for a in args]
    dtype = next(a.dtype for a in args if isinstance(a, Tensor))
    code = function(name, dtype)(*pointers, torch.get_num_threads())
    if code == OUT_OF_RANGE:
        raise IndexError("an input or target is no index of the vocabulary")
    if code == NO_MEMORY:
        raise MemoryError(f"no memory for {name}")
    if code == NOT_FINITE:
        raise FloatingPointError("logits are not finite")


ARGUMENTS = {
    # p a pointer, l a long, i an int, d a double, as in the sources.
    "gru_forward": "ppplpppppplllliii",
    "gru_backward": "ppplpppppppppplllliii",
    "cross_entropy": "ppppdplli",
    "sampler_open": "pppppplllliii",
    "sampler_run": "pppppldlddi",
    "sampler_close": "p",
    "coder_run": "pppppplii",
}


@functools.cache
def function(name: str, dtype: torch.dtype):
    """Return a function of ``csrc`` for float32 or float64, with its argument types."""
    found = getattr(build.library(), f"{name}_{'f64' if dtype == torch.float64 else 'f32'}")
    types = {"p": ctypes.c_void_p, "l": ctypes.c_long, "i": ctypes.c_int, "d": ctypes.c_double}
    found.argtypes = [types[letter] for letter in ARGUMENTS[name]]
    return found
