"""What surrounds the layers on a GPU: buffers, products, rows gathered and summed by index.

N rows, T time steps, B rows of a batch, P of them padded to sixteens, V vocabulary size.
"""

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda import nvrtc

FILES = ("instructions.cuh", "rows.cu", "loss.cu")
"""The kernels' source."""
LARGEST_ONE_HOT = 1024
"""The largest vocabulary for which rows are summed by a product with one-hot rows, whose work grows
with V. Row by row they took 185 us on an H100 at V 96, T 100, B 128, H 1024, ten times what reading
them takes, and a frequent character takes longer."""

PARTS = 528
"""Thread blocks of a sum or a maximum at most: four for each multiprocessor of an H100."""


def index_of(device: torch.device) -> int:
    """Which of the GPUs a device is."""
    return torch.cuda.current_device() if device.index is None else device.index


def kernels(index: int):
    """Those of ``rows.cu`` and ``loss.cu``, on the GPU of an index. Raises nvrtc.Unavailable."""
    return nvrtc.module(FILES, (), index)


def empty(like: Tensor, *size: int) -> Tensor:
    """A tensor that a kernel fills."""
    return torch.empty(size, dtype=like.dtype, device=like.device)


def mailbox(like: Tensor, *size: int, fill: bool = True) -> Tensor:
    """Halves full of a pattern that no conversion makes, which says: not written yet."""
    made = torch.empty(size, dtype=torch.float16, device=like.device)
    if fill:
        made.view(torch.int16).fill_(-1)
    return made


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """The product of two matrices of 16-bit numbers, in float32."""
    if a.is_cuda:
        try:
            return torch.mm(a, b, out_dtype=torch.float32, out=out)
        except TypeError:  # torch before 2.8
            pass
    return torch.mm(a.float(), b.float(), out=out)


def gather(table: Tensor, inputs: Tensor) -> Tensor:
    """table (V, C) at indices (T, B): (T, B, C).

    An index out of range gives NaN, and an IndexError from the next call of the backend.
    """
    made = empty(table, *inputs.shape, table.size(1))
    words = table.size(1) * table.element_size() // 4
    kernels(index_of(table.device)).launch(
        "gather_rows", (min(inputs.numel(), 1 << 16),), table.contiguous(), inputs.contiguous(),
        made, inputs.numel(), len(table), words, nvrtc.status(),
    )  # fmt: skip
    return made


class Gather(torch.autograd.Function):
    """:func:`gather` with a gradient, that is the same in each run."""

    @staticmethod
    @custom_fwd(device_type="cuda")
    def forward(ctx, table, inputs):
        # An index out of range will be reported; backward must not follow it.
        ctx.save_for_backward(inputs.clamp(0, len(table) - 1))
        ctx.size = len(table)
        return gather(table, inputs)

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, grad):
        (inputs,) = ctx.saved_tensors
        backward = torch.ops.aten.embedding_dense_backward
        return backward(grad.contiguous(), inputs, ctx.size, -1, False), None


def one_hot(inputs: Tensor, wide: int, size: int) -> Tensor | None:
    """Halves (T P, V) with a 1 at each of the indices (T, B), for :func:`sum_rows`; V = size.

    V is padded to eights. An index out of range has no 1. Returns None where V is too large.
    """
    if size > LARGEST_ONE_HOT:
        return None
    steps, rows, columns = *inputs.shape, -(-size // 8) * 8
    made = torch.empty(steps * wide, columns, dtype=torch.float16, device=inputs.device)
    kernels(index_of(inputs.device)).launch(
        "one_hot", (min(-(-made.numel() // 2048), 1 << 10),), inputs.contiguous(), made,
        steps, rows, wide, size, columns,
    )  # fmt: skip
    return made


def sum_rows(x: Tensor, inputs: Tensor, size: int, scale: Tensor, hot: Tensor | None) -> Tensor:
    """Sums (V, C) of rows of x (T, P, C), halves, with the same of the indices (T, B); V = size.

    They are multiplied by scale[1], and the same in each run. hot: what :func:`one_hot` returns.
    """
    if hot is not None:
        return matmul(hot.t(), x.flatten(0, 1))[:size].mul_(scale[1])
    _, wide, columns = x.shape
    made = torch.empty(size, columns, device=x.device)
    kernels(index_of(x.device)).launch(
        "sum_rows_f16", (size, -(-columns // 512)), x, inputs.contiguous(), made, scale,
        inputs.numel(), inputs.size(1), wide, x.stride(1), columns,
    )  # fmt: skip
    return made


def largest(scale: Tensor, x: Tensor, factor: Tensor | None, y: Tensor | None) -> None:
    """Make scale[0] the largest absolute value of factor[0] x and y, NaN where one is NaN.

    x and y are dense; without y or a factor, of the rest.
    """
    blocks = min(-(-x.numel() // 2048) or 1, PARTS)
    parts = empty(scale, blocks)
    module = kernels(index_of(x.device))
    module.launch(
        "largest_parts", (blocks,), x, factor, y, parts, *divmod(x.numel(), 4),
        0 if y is None else y.numel(),
    )  # fmt: skip
    module.launch("largest_of_parts", (1,), parts, scale, blocks)
