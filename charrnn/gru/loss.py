"""A fused linear layer and cross-entropy, which never keeps all logits in memory.

N rows, H hidden size, V vocabulary size.

For each chunk of rows the forward pass computes logits, nats and the gradient, which overwrites
the logits, and from it the gradients of the layer (as in Liger Kernel, Hsu et al. 2024,
arXiv:2410.10989). Under autocast with bfloat16 one function of ``csrc`` does all of it, with
bfloat16 operands (:mod:`charrnn.gru.bf16`).
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru import bf16, native

CHUNK = 1 << 18
"""Logits per chunk: 1 MiB of float32 stays in the processor's cache."""


def linear_cross_entropy(inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of a linear layer's logits.

    On a GPU see :mod:`charrnn.gru.cuda.loss`, where an index out of range is reported later.

    Args:
        inputs: (N, H).
        weight, bias: (V, H) and (V).
        targets: (N) int64; -100 is ignored, as in torch.

    Raises:
        IndexError: a target is not an index of the vocabulary.
    """
    if inputs.is_cuda:
        if inputs.dtype == torch.float64:
            return F.cross_entropy(F.linear(inputs, weight, bias), targets)
        from charrnn.gru.cuda import loss

        return loss.linear_cross_entropy(inputs, weight, bias, targets)
    kept = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    tensors = [tensor.to(kept) for tensor in (inputs, weight, bias)]
    path = bf16.path() if kept == torch.float32 else 0
    loss = LinearCrossEntropy.apply(*tensors, targets, path, torch.is_grad_enabled())
    return loss.to(inputs.dtype)


@torch.no_grad()
def linear_nats(inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the nats of every target, (N), without a gradient; arguments as above.

    On a CPU, under autocast with bfloat16 (:func:`charrnn.gru.bf16.path` is not 0).
    """
    tensors = [tensor.float().contiguous() for tensor in (inputs, weight, bias)]
    nats = native.empty(tensors[0], len(inputs))
    fused(*tensors, targets.contiguous(), bf16.path(), each=nats)
    return nats


class LinearCrossEntropy(torch.autograd.Function):
    """Mean nats of float inputs (N, H); the forward pass computes the gradients if needed."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, inputs, weight, bias, targets, path, training):
        needs = [training and need for need in ctx.needs_input_grad[:3]]
        count, size = targets.numel(), weight.size(0)
        targets, bias = targets.contiguous(), bias.contiguous()
        # Gradients include the factor of the mean, so that backward only returns them.
        scale = 1 / max(1, count - int((targets == IGNORED).sum()))
        nats = ctypes.c_double(0)
        d_inputs = torch.empty_like(inputs) if needs[0] else None
        d_weight = torch.zeros_like(weight) if needs[1] else None
        d_bias = torch.zeros_like(bias) if any(needs) else None
        rows = max(1, CHUNK // size)
        if path:
            inputs, weight = inputs.contiguous(), weight.contiguous()
            grads = {"d_inputs": d_inputs, "d_weight": d_weight, "d_bias": d_bias}
            nats = fused(inputs, weight, bias, targets, path, scale, **grads)
        for i in range(0, 0 if path else count, rows):
            part = inputs[i : i + rows]
            logits = part @ weight.t()
            cross_entropy(logits, bias, targets[i : i + rows], nats, scale, d_bias)
            if needs[0]:
                torch.mm(logits, weight, out=d_inputs[i : i + rows])
            if needs[1]:
                d_weight.addmm_(logits.t(), part)
        ctx.save_for_backward(d_inputs, d_weight, d_bias if needs[2] else None)
        return inputs.new_tensor(nats.value * scale if count else float("nan"))

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx, grad):
        grads = ctx.saved_tensors
        if grad.item() != 1:
            grads = [None if g is None else g * grad for g in grads]
        return *grads, None, None, None


IGNORED = -100


def cross_entropy(
    logits: Tensor,
    bias: Tensor,
    targets: Tensor,
    nats: ctypes.c_double,
    scale: float,
    d_bias: Tensor | None,
) -> None:
    """Add the nats of rows of logits (N, V) to ``nats``, in place.

    Unless d_bias (V) is None, the gradient times scale overwrites the logits, and its sum over
    the rows is added to d_bias.
    """
    native.call(
        "cross_entropy", logits, bias, targets, ctypes.addressof(nats), scale, d_bias, *logits.shape
    )


def fused(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    path: int,
    scale: float = 1.0,
    each: Tensor | None = None,
    d_inputs: Tensor | None = None,
    d_weight: Tensor | None = None,
    d_bias: Tensor | None = None,
) -> ctypes.c_double:
    """Return the sum of the nats of all rows, computed with bfloat16 operands.

    Unless they are None, writes the nats of every row to ``each`` and scale times the gradients to
    d_inputs and d_weight, and adds them to d_bias, which is needed if any of the other two is.
    """
    nats = ctypes.c_double(0)
    native.call(
        "linear_cross_entropy", inputs, weight, bias, targets, ctypes.addressof(nats), scale,
        each, d_inputs, d_weight, d_bias, *inputs.shape[:1], *weight.shape, path=path,
    )  # fmt: skip
    return nats
