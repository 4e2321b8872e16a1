"""What surrounds the layers on a GPU: buffers, products, rows gathered and summed by index.

N rows, T time steps, B rows of a batch, P of them padded to sixteens, V vocabulary size.
"""

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda import nvrtc


def index_of(device: torch.device) -> int:
    """Which of the GPUs a device is."""
    return torch.cuda.current_device() if device.index is None else device.index


def kernels(index: int):
    """Those of ``rows.cu``, on the GPU of an index. Raises nvrtc.Unavailable."""
    return nvrtc.module(("instructions.cuh", "rows.cu"), (), index)


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


def sum_rows(x: Tensor, inputs: Tensor, size: int, scale: Tensor) -> Tensor:
    """Sums (V, C) of rows of x (T, P, C), halves, with the same of the indices (T, B); V = size.

    They are multiplied by scale[1], and the same in each run.
    """
    _, wide, columns = x.shape
    made = torch.empty(size, columns, device=x.device)
    kernels(index_of(x.device)).launch(
        "sum_rows_f16", (size, -(-columns // 512)), x, inputs.contiguous(), made, scale,
        inputs.numel(), inputs.size(1), wide, x.stride(1), columns,
    )  # fmt: skip
    return made
