"""The GRU with this project's C++ kernels for CPUs, in ``csrc``: every variant.

On a GPU it hands on to :mod:`charrnn.gru.cuda`.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.

A layer is one call in each direction, including the products with its inputs and all gradients.
If inputs are indices, W_ih x is computed for the V rows of the table and gathered.

Under autocast with bfloat16, products take bfloat16 operands where the processor is faster with
them: see :mod:`charrnn.gru.bf16`.
"""

import ctypes
import functools
import math
import weakref

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from charrnn.gru import bf16, build, cuda

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
    path = bf16.path() if kept == torch.float32 else 0
    variant = (reset == "before", gate == "hard_sigmoid", path, torch.is_grad_enabled())
    inputs = inputs.to(kept) if inputs.is_floating_point() else inputs
    table = None if table is None else table.to(kept)
    # Layers at once: one where dropout comes between, and where the states below are not needed.
    size = 1 if dropout or not torch.is_grad_enabled() else len(weights)
    final = []
    for first in range(0, len(weights), size):
        if first and dropout:
            inputs = F.dropout(inputs, dropout)
        group = slice(first, first + size)
        tensors = [tensor.to(kept) for layer in weights[group] for tensor in layer]
        inputs, last = Layers.apply(inputs, table, state[group].to(kept), *variant, *tensors)
        table = None
        final.append(last)
    return inputs.to(dtype), (torch.cat(final) if len(final) > 1 else final[0]).to(dtype)


class Layers(torch.autograd.Function):
    """Layers over a window: (T, B, I) or indices (T, B), and states (L, B, H), to (T, B, H).

    The second result are the final states. Nothing here depends on autocast, which torch.amp's
    decorators would take time to turn off.
    """

    @staticmethod
    def forward(ctx, inputs, table, state, before, hard, path, training, *weights):
        training = training and any(ctx.needs_input_grad)
        weights = [weight.contiguous() for weight in weights]
        x = index = gates = None
        if inputs.is_floating_point():
            x = inputs.contiguous()
        else:
            index = inputs.long().contiguous()
            w_ih = weights[0].t()
            gates = w_ih.contiguous() if table is None else product(table, w_ih)
        (steps, rows), (layers, _, hidden) = inputs.shape[:2], state.shape
        states = kept_empty(state, layers, steps + 1, rows, hidden)
        states[:, 0] = state
        whole = -(-hidden // 16) * 16  # in blocks of units
        saved = kept_empty(state, layers, steps, rows, 4 * whole) if training else None
        below = (x, gates, index, 0 if gates is None else len(gates))
        for layer, own in enumerate(states.unbind()):
            w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
            call(
                "gru_forward", *below, w_ih, w_hh, b_ih, b_hh, own,
                saved[layer] if training else None, steps, rows, hidden, w_ih.size(1), before,
                hard, path=path,
            )  # fmt: skip
            outputs = own[1:]
            below = (outputs, None, None, 0)
        if training:
            ctx.save_for_backward(x, table, index, states, saved, *weights)
            ctx.variant, ctx.path = (before, hard), path
            ctx.set_materialize_grads(False)
        return outputs, states[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_final):
        x, table, index, states, saved, *weights = ctx.saved_tensors
        layers, steps, rows, hidden = states.size(0), states.size(1) - 1, *states.shape[2:]
        need_x, need_table, _, _, _, _, _, *needs = ctx.needs_input_grad
        if grad is None:
            grad = torch.zeros_like(states[0, 1:])
        elif grad_final is not None:
            grad = grad.clone(memory_format=torch.contiguous_format)
        else:
            grad = grad.contiguous()
        d_states = empty(grad, layers, rows, hidden)
        d_table, d_weights = None, [None] * len(weights)
        for layer in reversed(range(layers)):
            w_ih, w_hh = weights[4 * layer : 4 * layer + 2]
            need_w_ih, need_w_hh = needs[4 * layer : 4 * layer + 2]
            features, own = w_ih.size(1), states[layer]
            if grad_final is not None:
                grad[-1] += grad_final[layer]
            below, chosen = (states[layer - 1, 1:], None) if layer else (x, index)
            size = d_x = d_w_hh = d_w_ih = d_gates = None
            if layer or need_x:
                d_x = empty(grad, steps, rows, features)
            if need_w_hh:
                d_w_hh = empty(grad, 3 * hidden, hidden)
            if chosen is not None:
                size = features if table is None else len(table)
                if need_w_ih or need_table:
                    d_gates = empty(grad, size, 3 * hidden)
            elif need_w_ih:
                d_w_ih = empty(grad, 3 * hidden, features)
            d_bias = empty(grad, 2, 3 * hidden)
            call(
                "gru_backward", grad, below, chosen, size or 0, w_ih, w_hh, own, saved[layer],
                d_x, d_states[layer], d_bias, d_w_hh, d_w_ih, d_gates, steps, rows, hidden,
                features, *ctx.variant, path=ctx.path,
            )  # fmt: skip
            if d_gates is not None:
                if need_w_ih:
                    columns = d_gates.t()
                    d_w_ih = columns if table is None else product(columns, table)
                if need_table:
                    d_table = product(d_gates, w_ih)
            d_weights[4 * layer : 4 * layer + 4] = d_w_ih, d_w_hh, *d_bias.unbind()
            grad = d_x
        return d_x, d_table, d_states, None, None, None, None, *d_weights


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the product (M, N) of matrices (M, K) and (K, N).

    Right is dense by rows or, as the transpose of a matrix is, by columns.
    """
    by_columns = not right.is_contiguous()
    out = empty(left, left.size(0), right.size(1))
    call(
        "product", left, *left.stride(), right.t().contiguous() if by_columns else right,
        by_columns, out, *left.shape, right.size(1),
    )  # fmt: skip
    return out


def empty(like: Tensor, *size: int) -> Tensor:
    """Return an uninitialized tensor for a kernel to fill."""
    return torch.empty(size, dtype=like.dtype)


def kept_empty(like: Tensor, *size: int) -> Tensor:
    """:func:`empty` in memory that the kernels keep from step to step, where it is large.

    New pages from the system took 4 % of a training step at (H, L, B) = (512, 2, 64).
    """
    count = math.prod(size)
    bytes = count * like.element_size()
    if bytes < 1 << 20:
        return empty(like, *size)
    library = memory()
    address = library.memory_take(bytes)
    if not address:
        raise MemoryError(f"no memory for {bytes} bytes")
    block = (ctypes.c_char * bytes).from_address(address)
    # The tensor's memory holds the block, which is given back when the last tensor on it is gone.
    weakref.finalize(block, library.memory_give, address, bytes).atexit = False
    return torch.frombuffer(block, dtype=like.dtype, count=count).view(size)


@functools.cache
def memory() -> ctypes.CDLL:
    """Return the library with the types of its functions of ``csrc/memory.h``."""
    library = build.library()
    library.memory_take.argtypes, library.memory_take.restype = [ctypes.c_long], ctypes.c_void_p
    library.memory_give.argtypes = [ctypes.c_void_p, ctypes.c_long]
    library.memory_kept.restype = ctypes.c_long
    return library


def call(name: str, *args: Tensor | int | None, path: int = 0) -> None:
    """Call a function of ``csrc`` for the type of its first tensor, on torch's threads.

    Args:
        path: of :func:`charrnn.gru.bf16.path`; unless it is 0, the function for bfloat16 operands.

    Raises:
        IndexError: an index is out of range.
        MemoryError: a kernel could not allocate memory.
        FloatingPointError: logits are not finite.
    """
    pointers = [a.data_ptr() if isinstance(a, Tensor) else a for a in args]
    dtype = next(a.dtype for a in args if isinstance(a, Tensor))
    called = function(name, torch.bfloat16 if path else dtype)
    raise_error(called(*pointers, *([path] if path else []), torch.get_num_threads()), name)


def raise_error(code: int, name: str) -> None:
    """Raise the error of a code that a function of ``csrc`` returned; see :func:`call`."""
    if code == OUT_OF_RANGE:
        raise IndexError("an input or target is no index of the vocabulary")
    if code == NO_MEMORY:
        raise MemoryError(f"no memory for {name}")
    if code == NOT_FINITE:
        raise FloatingPointError("logits are not finite")


ARGUMENTS = {
    # p a pointer, l a long, i an int, d a double, as in the sources; those for bfloat16 operands
    # have one more int.
    "gru_forward": "ppplpppppplllliii",
    "gru_backward": "ppplpppppppppplllliii",
    "product": "pllpipllli",
    "tanh_table": "ppplli",
    "tanh_table_backward": "pppplli",
    "linear_cross_entropy": "pppppppppllli",
    "sampler_open": "pppppplllliiii",
    "sampler_run": "ppppppldlddllli",
    "sampler_close": "p",
    "beam_open": "pppppllllllld",
    "beam_run": "ppppli",
    "beam_close": "pp",
    "coder_run": "pppppplii",
}
SUFFIXES = {None: "", torch.float32: "_f32", torch.float64: "_f64", torch.bfloat16: "_bf16"}


@functools.cache
def function(name: str, dtype: torch.dtype | None):
    """Return a function of ``csrc``, with its argument types.

    Args:
        dtype: of its arrays; bfloat16 for float32 arrays and bfloat16 operands of products. None
            for a function that has one form.
    """
    found = getattr(build.library(), f"{name}{SUFFIXES[dtype]}")
    types = {"p": ctypes.c_void_p, "l": ctypes.c_long, "i": ctypes.c_int, "d": ctypes.c_double}
    letters = ARGUMENTS[name] + ("i" if dtype == torch.bfloat16 else "")
    found.argtypes = [types[letter] for letter in letters]
    return found
