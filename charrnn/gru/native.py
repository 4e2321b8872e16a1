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
    """One layer over a window: (T, B, I) or indices (T, B), and a state (B, H), to (T, B, H).

    Nothing here depends on autocast, which torch.amp's decorators would take time to turn off.
    """

    @staticmethod
    def forward(ctx, inputs, table, state, w_ih, w_hh, b_ih, b_hh, before, hard, path, training):
        training = training and any(ctx.needs_input_grad)
        w_ih, w_hh = w_ih.contiguous(), w_hh.contiguous()
        x = index = gates = None
        if inputs.is_floating_point():
            x = inputs.contiguous()
        else:
            index = inputs.long().contiguous()
            gates = w_ih.t().contiguous() if table is None else product(table, w_ih.t())
        sizes = (*inputs.shape[:2], w_hh.size(1), w_ih.size(1))
        steps, rows, hidden, _ = sizes
        states = empty(state, steps + 1, rows, hidden)
        states[0] = state
        whole = -(-hidden // 16) * 16  # in blocks of units
        saved = kept_empty(state, steps, rows, 4 * whole) if training else None
        call(
            "gru_forward", x, gates, index, len(gates) if x is None else 0, w_ih, w_hh,
            b_ih.contiguous(), b_hh.contiguous(), states, saved, *sizes, before, hard, path=path,
        )  # fmt: skip
        if training:
            ctx.save_for_backward(x, table, index, w_ih, w_hh, states, saved)
            ctx.sizes, ctx.variant, ctx.path = sizes, (before, hard), path
        return states[1:]

    @staticmethod
    @once_differentiable
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
            d_state, d_bias, d_w_hh, d_w_ih, d_gates, *ctx.sizes, *ctx.variant, path=ctx.path,
        )  # fmt: skip
        if folded and need_w_ih:
            d_w_ih = d_gates.t() if table is None else product(d_gates.t(), table)
        d_table = product(d_gates, w_ih) if need_table else None
        # Of the sums inside the hidden product q comes first; outside it n comes last.
        inside = d_bias if before else d_bias[:3].roll(-1, 0)
        return (
            d_x, d_table, d_state, d_w_ih, d_w_hh, d_bias[-3:].flatten(), inside.flatten(),
            None, None, None, None,
        )  # fmt: skip


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
    "linear_cross_entropy": "pppppdppppllli",
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
