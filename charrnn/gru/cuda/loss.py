"""A linear layer and cross-entropy on a GPU, with one tensor of logits, which their gradient takes.

N rows, H hidden size, V vocabulary size.
"""

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda import nvrtc, rows
from charrnn.gru.cuda.lanes import Lanes

WARPS = 8
"""Rows of a thread block."""


def linear_cross_entropy(inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean nats of targets (N) under the logits of inputs (N, H), weight (V, H) and bias (V).

    Products take 16-bit operands under autocast, else float32 as
    ``torch.get_float32_matmul_precision()`` has it; all else is float32. A target of -100 is left
    out. One that is no index of the vocabulary makes the result NaN, and an IndexError of the
    backend's next call.
    """
    low = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    if inputs.dtype in (torch.float16, torch.bfloat16):
        low = inputs.dtype
    training = torch.is_grad_enabled()
    loss = LinearCrossEntropy.apply(inputs, weight, bias, targets, low, training)
    return loss.to(inputs.dtype)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean nats of inputs (N, H); low is the operands' 16-bit type, or None."""

    @staticmethod
    @custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx, inputs, weight, bias, targets, low, training):
        training = training and any(ctx.needs_input_grad)
        inputs, weight, bias = (t.float() for t in (inputs, weight, bias))
        if low is None:
            logits = torch.addmm(bias, inputs, weight.t())
        else:
            inputs, weight = inputs.to(low), weight.to(low)
            logits = rows.matmul(inputs, weight.t()).add_(bias)
        nats = rows.empty(logits, len(logits))
        rows.kernels(rows.index_of(logits.device)).launch(
            "cross_entropy", (-(-len(logits) // WARPS),), logits, targets.contiguous(), nats,
            logits if training else None, *logits.shape, nvrtc.status(), block=32 * WARPS,
        )  # fmt: skip
        count = (targets != -100).sum()
        if training:
            ctx.save_for_backward(logits, inputs, weight, count)
        return nats.sum() / count

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, grad):
        d_logits, inputs, weight, count = ctx.saved_tensors
        needs, share = ctx.needs_input_grad, (grad / count).float()
        # Scaled before the products, whose results are larger. In halves shares of probabilities
        # would be lost, and bfloat16 takes their place, or, for the weight, they are scaled after.
        scaled = d_logits * share
        exact, lanes = inputs.dtype == torch.float32, Lanes(inputs.device)
        low = scaled if exact else scaled.bfloat16()
        product, d_inputs, d_weight = torch.mm if exact else rows.matmul, None, None
        with lanes.on(1):
            # The sum first: cuBLAS wants a context, which a thread has after its first kernel.
            d_bias = scaled.sum(0) if needs[2] else None
            if needs[1] and inputs.dtype == torch.float16:
                d_weight = product(d_logits.half().t(), inputs) * share
            elif needs[1]:
                d_weight = product(low.t(), inputs)
        if needs[0]:
            d_inputs = product(low, weight.to(low.dtype))
        lanes.join()
        return d_inputs, d_weight, d_bias, None, None, None
