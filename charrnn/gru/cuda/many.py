"""Elementwise work on many float32 tensors of a GPU in one launch."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from charrnn.gru.cuda import nvrtc
from charrnn.gru.cuda.rows import empty, index_of

MOST = 24
"""Tensors of a launch, as in ``many.cu``."""
BLOCKS = 264
"""Thread blocks of a tensor at most: two for each multiprocessor of an H100."""


class Many(ctypes.Structure):
    """As in ``many.cu``."""

    _fields_ = [
        *((name, ctypes.c_void_p * MOST) for name in "abcd"),
        *((name, ctypes.c_int * MOST) for name in ("n", "turn", "parts", "stride")),
    ]


def kernels(index: int):
    """Those of ``many.cu``, on the GPU of an index. Raises nvrtc.Unavailable."""
    return nvrtc.module(("instructions.cuh", "many.cu"), (), index)


def supports(tensors: list[Tensor]) -> bool:
    """Whether tensors of a GPU are dense float32 ones, and there are kernels."""
    if not tensors or any(t.dtype != torch.float32 or not t.is_contiguous() for t in tensors):
        return False
    try:
        kernels(index_of(tensors[0].device))
    except nvrtc.Unavailable:
        return False
    return True


def launch(name: str, rows: Sequence[tuple], *args: Tensor | float) -> None:
    """Launch a kernel for rows (a, b, c, d, turn): dense tensors of one size, or None; a number.

    d may have another size, and b (S, n) be S rows for the n numbers of a.
    """
    for first in range(0, len(rows), MOST):
        some, many = rows[first : first + MOST], Many()
        for i, (*tensors, turn) in enumerate(some):
            many.n[i], many.turn[i], many.parts[i] = tensors[0].numel(), turn, 1
            if tensors[1] is not None and tensors[1].numel() != many.n[i]:
                many.parts[i], many.stride[i] = len(tensors[1]), tensors[1].stride(0)
            for field, tensor in zip((many.a, many.b, many.c, many.d), tensors):
                field[i] = None if tensor is None else tensor.data_ptr()
        most = max(a.numel() for a, *_ in some)
        grid = (min(-(-most // 1024), BLOCKS), len(some))
        kernels(index_of(some[0][0].device)).launch(name, grid, many, *args)


def multiply_turned(
    tensors: list[Tensor],
    turns: list[int | None],
    factor: Tensor,
    partial: Sequence[tuple[Tensor, int]] = (),
) -> list[Tensor]:
    """Return dense tensors times factor[0], each from a number of elements on, and then the first.

    Those whose number is None are multiplied in place.

    Args:
        partial: tensors (S, n) and such a number, of whose rows the sums are treated the same.
    """
    made = [t if turn is None else empty(t, *t.shape) for t, turn in zip(tensors, turns)]
    rows = [(a, b, None, None, turn or 0) for a, b, turn in zip(made, tensors, turns)]
    rows += [(empty(t, t.size(1)), t, None, None, turn) for t, turn in partial]
    launch("multiply_turned", rows, factor)
    return [a for a, *_ in rows]


def to_halves(
    tensors: list[Tensor], turned: Sequence[bool]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return matrices of even sizes in half precision, and transposes of those that are turned."""
    tensors = [tensor.contiguous() for tensor in tensors]
    made = [torch.empty_like(tensor, dtype=torch.half) for tensor in tensors]
    others = [
        torch.empty_like(a.t(), memory_format=torch.contiguous_format) if turn else None
        for a, turn in zip(made, turned)
    ]
    launch("to_halves", [(a, t, c, None, t.size(1)) for a, t, c in zip(made, tensors, others)])
    return made, others


def clip(tensors: list[Tensor], bound: float) -> None:
    """Clip all elements to [-bound, bound] in place; NaN stays NaN."""
    launch("clip", [(t, None, None, None, 0) for t in tensors], float(bound))
