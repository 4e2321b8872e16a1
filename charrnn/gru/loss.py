"""A fused linear layer and cross-entropy, which never keeps all logits in memory.

N rows, H hidden size, V vocabulary size.

On a CPU it is one function of ``csrc``. For some rows at a time it computes logits, nats and the
gradient, which overwrites the logits, and from it the gradients of the layer (as in Liger Kernel,
Hsu et al. 2024, arXiv:2410.10989); under autocast with bfloat16 its products take bfloat16 operands
(:mod:`charrnn.gru.bf16`).
"""

import ctypes
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from charrnn.gru import bf16, native
from charrnn.gru.table import gradients_of_sum, tanh_of_sum

IGNORED = -100


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
    """Return the nats of every target, (N), on a CPU, without a gradient; arguments as above."""
    kept = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    tensors = [tensor.to(kept).contiguous() for tensor in (inputs, weight, bias)]
    nats = native.empty(tensors[0], len(inputs))
    path = bf16.path() if kept == torch.float32 else 0
    fused(*tensors, targets.contiguous(), path, each=nats)
    return nats.to(inputs.dtype)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean nats of float inputs (N, H); the forward pass computes the gradients if needed."""

    @staticmethod
    def forward(ctx, inputs, weight, bias, targets, path, training):
        needs = [training and need for need in ctx.needs_input_grad[:3]]
        tensors = [tensor.contiguous() for tensor in (inputs, weight, bias)]
        needed = [*needs[:2], any(needs)]
        # Gradients are those of the mean, so that backward only returns them.
        grads = [
            native.empty(tensor, *tensor.shape) if need else None
            for tensor, need in zip(tensors, needed)
        ]
        targets = targets.contiguous()
        mean = fused(*tensors, targets, path, None, *grads)
        ctx.save_for_backward(*grads[:2], grads[2] if needs[2] else None)
        return inputs.new_tensor(mean if targets.numel() else float("nan"))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grads = ctx.saved_tensors
        if grad.item() != 1:
            grads = [None if g is None else g * grad for g in grads]
        return *grads, None, None, None


def window_cross_entropy(
    inputs: Tensor,
    table: Tensor | None,
    table_bias: Tensor | None,
    state: Tensor,
    targets: Tensor,
    layers: list[tuple[Tensor, Tensor, Tensor, Tensor]],
    weight: Tensor,
    bias: Tensor,
    *,
    reset: str,
    gate: str,
) -> tuple[Tensor, Tensor]:
    """Layers without dropout, then :func:`linear_cross_entropy`, as one step of autograd on a CPU.

    Rows stay with the thread that has them in its cache, and Python and torch take less time.

    Args:
        inputs, table, state: as of :func:`charrnn.gru.native.forward`.
        table_bias: (I); the table is tanh(table + table_bias) then. None for the table as it is.
        targets: (T, B) int64; -100 is ignored.
        layers: the weights of each.
        weight, bias: (V, H) and (V) of the linear layer.

    Returns:
        The mean nats and the final state (L, B, H).
    """
    dtype = state.dtype
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    path = bf16.path() if kept == torch.float32 and state.numel() else 0
    variant = reset == "before", gate == "hard_sigmoid", path
    inputs = inputs.to(kept) if inputs.is_floating_point() else inputs
    table, table_bias = (None if t is None else t.to(kept) for t in (table, table_bias))
    tensors = weight, bias, *itertools.chain(*layers)
    tensors = [t if t.dtype == kept else t.to(kept) for t in tensors]  # which takes time
    loss, final = WindowCrossEntropy.apply(
        inputs, table, table_bias, state.to(kept), targets, variant, *tensors
    )
    return loss.to(dtype), final.to(dtype)


class WindowCrossEntropy(torch.autograd.Function):
    """Mean nats and final state of layers and a linear layer over a window."""

    @staticmethod
    def forward(ctx, inputs, table, table_bias, state, targets, variant, weight, bias, *layers):
        if table_bias is not None:
            table = tanh_of_sum(table, table_bias)
        weight, bias = weight.contiguous(), bias.contiguous()
        outputs = *inputs.shape[:2], weight.size(1)
        grads = [native.empty(weight, *s) for s in (outputs, weight.shape, bias.shape)]
        nats = ctypes.c_double(0)
        loss = targets.contiguous(), weight, bias, len(weight), ctypes.addressof(nats), *grads
        kept, _, final = native.run_forward(inputs, table, state, layers, variant, True, loss)
        ctx.save_for_backward(*grads, *kept)
        ctx.variant, ctx.threads = variant, torch.get_num_threads()
        ctx.has_bias = table_bias is not None
        ctx.set_materialize_grads(False)
        return state.new_tensor(nats.value if targets.numel() else float("nan")), final

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_final):
        grads, kept = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        if grad is None or grad.item() != 1:
            grads = [torch.zeros_like(g) if grad is None else g * grad for g in grads]
        need_inputs, need_table, need_bias, _, _, _, _, _, *needs = ctx.needs_input_grad
        needs = [need_inputs, need_table or need_bias, *needs]
        d_inputs, d_table, d_state, *d_layers = native.run_backward(
            kept, grads[0], grad_final, ctx.variant, needs, ctx.threads, True
        )
        d_bias = None
        if ctx.has_bias and d_table is not None:
            d_table, d_bias = gradients_of_sum(d_table, kept[1])
        return d_inputs, d_table, d_bias, d_state, None, None, *grads[1:], *d_layers


def fused(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    path: int,
    each: Tensor | None = None,
    d_inputs: Tensor | None = None,
    d_weight: Tensor | None = None,
    d_bias: Tensor | None = None,
) -> float:
    """Return the mean nats of the rows that are not ignored.

    Writes the nats of every row to ``each`` and the gradients of the mean to the others, unless
    they are None; d_bias is needed if one of the other two is.
    """
    nats = ctypes.c_double(0)
    native.call(
        "linear_cross_entropy", inputs, weight, bias, targets, ctypes.addressof(nats), each,
        d_inputs, d_weight, d_bias, *inputs.shape[:1], *weight.shape, path=path,
    )  # fmt: skip
    return nats.value
