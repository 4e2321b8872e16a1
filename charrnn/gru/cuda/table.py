"""The table of an input layer on a GPU: tanh(E + a) of every character, a kernel each way.

V vocabulary size, H hidden size.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda import rows

COLUMNS = 32
"""Columns of a thread block in backward, whose warps share the rows."""


class TanhTable(torch.autograd.Function):
    """tanh(E + a) of a weight E (V, H) and a bias a (H), float32."""

    @staticmethod
    def forward(ctx, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = weight.contiguous(), bias.contiguous()
        out = rows.empty(weight, *weight.shape)
        grid = (-(-out.numel() // 256),)
        launch(out, "tanh_table", grid, weight, bias, out, out.numel(), out.size(1))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        (out,) = ctx.saved_tensors  # torch's kernels have run before in this thread, see loss.py
        d_weight, d_bias = rows.empty(out, *out.shape), rows.empty(out, out.size(1))
        grid = (-(-out.size(1) // COLUMNS),)
        tensors = grad.contiguous(), out, d_weight, d_bias
        launch(out, "tanh_table_backward", grid, *tensors, *out.shape)
        return d_weight, d_bias


def launch(like: Tensor, name: str, grid: tuple[int], *args: Tensor | int) -> None:
    """Launch a kernel of ``rows.cu`` on the device of a tensor."""
    rows.kernels(rows.index_of(like.device)).launch(name, grid, *args)


def tanh_table(weight: Tensor, bias: Tensor) -> Tensor:
    """Return tanh(E + a), in float32."""
    return TanhTable.apply(weight, bias)
