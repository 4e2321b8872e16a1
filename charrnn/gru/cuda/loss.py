"""A linear layer and cross-entropy on a GPU: logits are made once, and gradients beside the loss.

N rows, H hidden size, V vocabulary size.
"""

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from charrnn.gru.cuda import nvrtc, rows
from charrnn.gru.cuda.lanes import Lanes
from charrnn.gru.cuda.many import multiply_turned

COLUMNS = 4
"""Partial sums of a block before those of the V columns, as in ``loss.cu``."""
KERNELS = ((128, 8), (512, 8), ("any", 1))
"""The largest vocabulary of each kernel, and how many rows a thread block has at a time."""


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
    """Mean nats of inputs (N, H); low is the operands' 16-bit type, or None.

    The gradient of the sum at the logits is made with the loss. What it is to be multiplied by,
    the loss's gradient by the number of targets, is known in backward, where smaller tensors are
    multiplied instead: the weight before the product that makes d_inputs, and d_weight. Operands
    of d_inputs are bfloat16 for float16 too: weights by a number of rows may be out of its range.
    """

    @staticmethod
    @custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx, inputs, weight, bias, targets, low, training):
        training = training and any(ctx.needs_input_grad)
        inputs, weight, bias = (t.float() for t in (inputs, weight, bias))
        if low is None:
            logits, added = torch.addmm(bias, inputs, weight.t()), None
        else:
            inputs = inputs.to(low)
            logits, added = rows.matmul(inputs, weight.to(low).t()), bias.contiguous()
        gradient, halves = None, None
        if training and low is None:
            gradient = logits
        elif training:  # rows of 16 bytes, which products read faster
            size = len(logits), -(-len(weight) // 8) * 8
            gradient = torch.empty(size, dtype=torch.bfloat16, device=logits.device)
            halves = torch.empty_like(gradient, dtype=low) if low == torch.float16 else None
        mean, sums = cross_entropy(logits, added, targets, gradient, halves)
        if training:
            ctx.save_for_backward(gradient, halves, inputs, weight, sums)
        return mean

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, grad):
        gradient, halves, inputs, weight, sums = ctx.saved_tensors
        (vocab, hidden), needs = weight.shape, ctx.needs_input_grad
        exact = gradient.dtype == torch.float32
        product, d_inputs, found = torch.mm if exact else rows.matmul, None, []
        # By torch: the driver and cuBLAS want a context, which a thread has after torch's kernel.
        share = (grad / sums[1]).float()
        lanes = Lanes(inputs.device)
        with lanes.on(1):
            if needs[1]:
                found.append(product((gradient if halves is None else halves).t(), inputs)[:vocab])
            if needs[2]:
                found.append(sums[COLUMNS:])
            found = multiply_turned(found, [None, 0] if needs[1] else [0], share) if found else []
        if needs[0]:
            scaled = torch.empty(gradient.size(1), hidden, dtype=gradient.dtype, device=grad.device)
            grid = (min(-(-scaled.numel() // 256), rows.PARTS),)
            rows.kernels(rows.index_of(grad.device)).launch(
                "scale_weight", grid, weight.contiguous(), share, scaled if exact else None,
                None if exact else scaled, weight.numel(), scaled.numel(),
            )  # fmt: skip
            d_inputs = product(gradient, scaled)
        lanes.join()
        d_weight = found.pop(0) if needs[1] else None
        d_bias = found.pop() if needs[2] else None
        return d_inputs, d_weight, d_bias, None, None, None


def cross_entropy(
    logits: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    gradient: Tensor | None,
    halves: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Mean nats of logits (N, V) plus a bias (V), and sums over rows (4 + V): nats, how many rows
    count, two zeros, the gradient's columns.

    Args:
        gradient: filled with that of the sum of nats: (N, V) in float32, in place if it is logits;
            or (N, W), bfloat16, W >= V.
        halves: filled with the same, in float16.
    """
    (count, vocab), module = logits.shape, rows.kernels(rows.index_of(logits.device))
    name, each = next(k for k in KERNELS if k[0] == "any" or vocab <= k[0])
    blocks, exact = min(-(-count // each), rows.PARTS), gradient is logits
    parts, sums = (rows.empty(logits, *size, vocab + COLUMNS) for size in ((blocks,), ()))
    mean, width = rows.empty(logits), vocab if gradient is None else gradient.size(1)
    module.launch(
        f"cross_entropy_{name}", (blocks,), logits, bias, targets.contiguous(), parts,
        gradient if exact else None, None if exact else gradient, halves, count, vocab, width,
        nvrtc.status(),
    )  # fmt: skip
    blocks_of_sums = -(-sums.numel() // 32)
    module.launch(
        "sum_parts", (blocks_of_sums,), parts, sums, mean, blocks, sums.numel(), block=1024
    )
    return mean, sums
