"""The GRU with this project's C++ kernels for CPUs, in ``csrc``: every variant.

On a GPU it hands on to :mod:`charrnn.gru.cuda`.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.

All layers are one call in each direction, including the products with inputs and all gradients.
If inputs are indices, W_ih x is computed for the V rows of the table and gathered.

Under autocast with bfloat16, products take bfloat16 operands where the processor is faster with
them: see :mod:`charrnn.gru.bf16`.
"""

import ctypes
import functools
import math
import weakref
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from charrnn.gru import bf16, build, cuda

NO_LOSS = (None, None, None, 0, None, None, None, None)
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
    path = bf16.path() if kept == torch.float32 and state.numel() else 0
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
        variant = before, hard, path
        kept, outputs, final = run_forward(inputs, table, state, weights, variant, training)
        if training:
            ctx.save_for_backward(*kept)
            ctx.variant, ctx.threads = variant, torch.get_num_threads()
            ctx.set_materialize_grads(False)
        return outputs, final

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_final):
        need_inputs, need_table, _, _, _, _, _, *needs = ctx.needs_input_grad
        d_inputs, d_table, d_state, *d_weights = run_backward(
            ctx.saved_tensors, grad, grad_final, ctx.variant, [need_inputs, need_table, *needs],
            ctx.threads,
        )  # fmt: skip
        return d_inputs, d_table, d_state, None, None, None, None, *d_weights


def run_forward(
    inputs: Tensor,
    table: Tensor | None,
    state: Tensor,
    weights: Sequence[Tensor],
    variant: tuple[bool, bool, int],
    training: bool,
    loss: Sequence[Tensor | int | None] = NO_LOSS,
) -> tuple[list[Tensor | None], Tensor, Tensor]:
    """Run layers over a window; arguments as of :class:`Layers`.

    Args:
        variant: whether the reset is before the product, whether gates are hard, and the path of
            :func:`charrnn.gru.bf16.path`.
        loss: arguments of ``csrc/forward.cpp`` for the loss, with which there are no outputs.

    Returns:
        What :func:`run_backward` needs if training, outputs (T, B, H), and final states (L, B, H).
    """
    weights = [weight.contiguous() for weight in weights]
    x = index = None
    if inputs.is_floating_point():
        x = inputs.contiguous()
    else:
        index = inputs.long().contiguous()
        table = None if table is None else table.contiguous()
    (steps, rows), (layers, _, hidden) = inputs.shape[:2], state.shape
    states = kept_empty(state, layers, steps + 1, rows, hidden)
    whole = -(-hidden // 16) * 16  # in blocks of units
    saved = kept_empty(state, layers, steps, rows, 4 * whole) if training else None
    final = empty(state, layers, rows, hidden)
    features = weights[0].size(1)
    call(
        "gru_forward", state.contiguous(), final, states, saved, x, table, index,
        features if table is None else len(table), pointers(weights), *loss, steps, rows, hidden,
        features, layers, *variant[:2], path=variant[2],
    )  # fmt: skip
    return [x, table, index, states, saved, *weights], states[-1, 1:], final


def run_backward(
    kept: Sequence[Tensor | None],
    grad: Tensor | None,
    grad_final: Tensor | None,
    variant: tuple[bool, bool, int],
    needs: list[bool],
    threads: int,
    is_loss: bool = False,
) -> list[Tensor | None]:
    """Return the gradients of inputs, table, states and weights of :func:`run_forward`.

    Args:
        kept: of run_forward.
        grad, grad_final: of the outputs and of the final states; None for zeros.
        needs: whether the gradient of inputs, of the table and of each weight is needed.
        threads: of run_forward, by which what it kept is split.
        is_loss: whether run_forward had a loss, which wrote grad.
    """
    x, table, index, states, saved, *weights = kept
    layers, steps, rows, hidden = states.size(0), states.size(1) - 1, *states.shape[2:]
    features = weights[0].size(1)
    need_x, need_table, *needs = needs
    grad = torch.zeros_like(states[0, 1:]) if grad is None else grad.contiguous()
    grad_final = None if grad_final is None else grad_final.contiguous()
    d_x = empty(grad, steps, rows, features) if need_x else None
    d_table = empty(grad, *table.shape) if need_table else None
    d_states = empty(grad, layers, rows, hidden)
    d_weights = [  # those of biases in any case
        empty(grad, *weight.shape) if need or i % 4 > 1 else None
        for i, (weight, need) in enumerate(zip(weights, needs))
    ]
    call(
        "gru_backward", grad, grad_final, x, table, index,
        features if table is None else len(table), pointers(weights), states, saved, d_x, d_table,
        d_states, pointers(d_weights), steps, rows, hidden, features, layers, is_loss,
        *variant[:2], path=variant[2], threads=threads,
    )  # fmt: skip
    return [d_x, d_table, d_states, *d_weights]


def pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array:
    """Return an array of the tensors' addresses, 0 for None."""
    addresses = [None if t is None else t.data_ptr() for t in tensors]
    return array_type(len(addresses))(*addresses)


@functools.cache
def array_type(length: int) -> type[ctypes.Array]:
    """Return the type of an array of pointers; ctypes would make one at each call, with a cycle."""
    return ctypes.c_void_p * length


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


def call(
    name: str, *args: Tensor | ctypes.Array | int | None, path: int = 0, threads: int | None = None
) -> None:
    """Call a function of ``csrc`` for the type of its first tensor, on torch's threads.

    Args:
        path: of :func:`charrnn.gru.bf16.path`; unless it is 0, the function for bfloat16 operands.
        threads: None for torch's number.

    Raises:
        IndexError: an index is out of range.
        MemoryError: a kernel could not allocate memory.
        FloatingPointError: logits are not finite.
    """
    pointers = [a.data_ptr() if isinstance(a, Tensor) else a for a in args]
    dtype = next(a.dtype for a in args if isinstance(a, Tensor))
    called = function(name, torch.bfloat16 if path else dtype)
    threads = torch.get_num_threads() if threads is None else threads
    raise_error(called(*pointers, *([path] if path else []), threads), name)


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
    "gru_forward": "ppppppplpppplppppllllliii",
    "gru_backward": "ppppplpppppppllllliiii",
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
