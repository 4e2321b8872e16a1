"""The table of an input layer by the kernels for CPUs: tanh(E + a) of every character.

V vocabulary size, H hidden size.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charrnn.gru import native


class TanhTable(torch.autograd.Function):
    """tanh(E + a) of a weight E (V, H) and a bias a (H)."""

    @staticmethod
    def forward(ctx, weight: Tensor, bias: Tensor) -> Tensor:
        out = tanh_of_sum(weight, bias)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        return gradients_of_sum(grad.contiguous(), *ctx.saved_tensors)


def tanh_of_sum(weight: Tensor, bias: Tensor) -> Tensor:
    """Return tanh(E + a) without a gradient."""
    out = native.empty(weight, *weight.shape)
    native.call("tanh_table", weight.contiguous(), bias.contiguous(), out, *out.shape)
    return out


def gradients_of_sum(grad: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of E and a from that of tanh(E + a), and tanh(E + a) itself."""
    d_weight, d_bias = native.empty(out, *out.shape), native.empty(out, out.size(1))
    native.call("tanh_table_backward", grad, out, d_weight, d_bias, *out.shape)
    return d_weight, d_bias


def tanh_table(weight: Tensor, bias: Tensor) -> Tensor:
    """Return tanh(E + a) on a CPU, in float32 or float64."""
    kept = torch.float64 if weight.dtype == torch.float64 else torch.float32
    return TanhTable.apply(weight.to(kept), bias.to(kept)).to(weight.dtype)
