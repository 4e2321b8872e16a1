"""The linear recurrence h_t = a_t h_(t-1) + b_t of a whole window, in parallel over its steps.

T time steps, B rows, H hidden size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Scan(torch.autograd.Function):
    """h_t = a_t h_(t-1) + b_t for a, b (T, B, H) and h_0 (B, H); its gradient is a scan too."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        outputs = scan(a, b, h)
        ctx.save_for_backward(a, outputs, h)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, outputs, h = ctx.saved_tensors
        grad = scan(a.roll(-1, 0).flip(0), grad.flip(0), torch.zeros_like(h)).flip(0)
        return grad * torch.cat([h[None], outputs[:-1]]), grad, a[0] * grad[0]


def scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """Return all h_t, (T, B, H), in about 2 sqrt(T) steps: in all blocks of sqrt(T) at once, then
    from block to block. Nothing is divided, and products of a of (0, 1) lose no precision."""
    size = math.isqrt(len(a) - 1) + 1
    padding = (0, 0, 0, 0, 0, -len(a) % size)
    shape = (-1, size, *h.shape)  # blocks, steps of a block, B, H
    a, b_ = (F.pad(x, padding).view(shape).clone() for x in (a, b))
    for k in range(1, size):
        b_[:, k].addcmul_(a[:, k], b_[:, k - 1])
        a[:, k] *= a[:, k - 1]
    for factors, sums in zip(a, b_):  # in place
        sums.addcmul_(factors, h)
        h = sums[-1]
    return b_.flatten(0, 1)[: len(b)]
