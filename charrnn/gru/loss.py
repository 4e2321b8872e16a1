"""A linear layer and cross-entropy in one, so that the logits need not be kept.

N rows, H hidden size, V vocabulary size.

Rows go through in chunks: logits, nats and the gradient, which takes the logits' place, and from it
the gradients of the layer, all in the forward pass (as in Liger Kernel, Hsu et al. 2024,
arXiv:2410.10989).
"""

import ctypes

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru import native

CHUNK = 1 << 18
"""Logits at a time: 1 MiB of them stays in the processor's cache."""


def linear_cross_entropy(inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean nats of targets (N) under the logits of inputs (N, H), weight (V, H) and bias (V).

    A target of -100 is left out, as in torch. By the native kernels, on a CPU. Raises IndexError
    for a target that is no index of the vocabulary.
    """
    kept = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    tensors = [tensor.to(kept) for tensor in (inputs, weight, bias)]
    loss = LinearCrossEntropy.apply(*tensors, targets, torch.is_grad_enabled())
    return loss.to(inputs.dtype)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean nats of float inputs (N, H); gradients are made in the forward pass, unless unwanted."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, inputs, weight, bias, targets, training):
        needs = [training and need for need in ctx.needs_input_grad[:3]]
        count, size = targets.numel(), weight.size(0)
        targets, bias = targets.contiguous(), bias.contiguous()
        # The mean's factor belongs into the gradient, so that backward has nothing left to do.
        scale = 1 / max(1, count - int((targets == IGNORED).sum()))
        nats = ctypes.c_double(0)
        d_inputs = torch.empty_like(inputs) if needs[0] else None
        d_weight = torch.zeros_like(weight) if needs[1] else None
        d_bias = torch.zeros_like(bias) if any(needs) else None
        rows = max(1, CHUNK // size)
        for i in range(0, count, rows):
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
        return *grads, None, None


IGNORED = -100


def cross_entropy(
    logits: Tensor,
    bias: Tensor,
    targets: Tensor,
    nats: ctypes.c_double,
    scale: float,
    d_bias: Tensor | None,
) -> None:
    """Add the nats of rows of logits (N, V) to nats.

    Unless d_bias (V) is None, the gradient times scale takes the logits' place, and its sum over
    the rows is added to d_bias.
    """
    native.call(
        "cross_entropy", logits, bias, targets, ctypes.addressof(nats), scale, d_bias, *logits.shape
    )
