"""Float32 layers computed in float16, as cuDNN has it, with gradients that stay in its range.

N rows of all steps.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class ToHalf(torch.autograd.Function):
    """Tensors as halves; their gradients are divided by what :class:`FromHalf` multiplied by.

    The first argument are two numbers that both share, of which the second is used here.
    """

    @staticmethod
    def forward(ctx, scale, *tensors):
        ctx.set_materialize_grads(False)
        ctx.scale = scale
        return tuple(tensor.half() for tensor in tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        # Of one dimension, so that products are in float32.
        return None, *(None if g is None else g * ctx.scale[1:] for g in grads)


class FromHalf(torch.autograd.Function):
    """Outputs (T, B, H) and final states as float32, of halves.

    Their gradients are multiplied by a power of two and rounded to halves.
    """

    @staticmethod
    def forward(ctx, scale, *tensors):
        ctx.set_materialize_grads(False)
        ctx.scale, ctx.rows = scale, tensors[0].size(0) * tensors[0].size(1)
        return tuple(tensor.float() for tensor in tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        norms = [torch.linalg.vector_norm(g, torch.inf) for g in grads if g is not None]
        ctx.scale.copy_(powers(torch.stack(norms).max(), ctx.rows))
        return None, *(None if g is None else (g * ctx.scale[:1]).half() for g in grads)


def powers(largest: Tensor, rows: int) -> Tensor:
    """Return a power of two and its inverse, of which the first brings gradients into range.

    The largest comes to 1..2, or with more than 2^11 rows N to that times 2^11 / N: sums over N
    stay below the largest half, 2^16, though gradients grow by 2^4 on their way. NaN twice where
    the largest is not finite, so that no gradient looks sound to a GradScaler.
    """
    room = min(0, 11 - math.ceil(math.log2(rows)))
    bits = largest.view(torch.int32) >> 23 & 255
    up = (room + 127 - bits).clamp(-100, 100)
    made = (torch.stack([up, -up]) + 127 << 23).view(torch.float32)
    return torch.where(bits == 255, torch.nan, made)
