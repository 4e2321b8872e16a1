"""Gradients between backward and the optimizer's step: L2, statistics, clipping by value.

On a CPU one pass of the kernels does all of it, and the step, where :func:`fused_step` has it.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer

from charrnn.gru import GRU
from charrnn.gru.cuda import many
from charrnn.gru.optimizer import FusedStep, supports

CLIPPING = ("configure_gradient_clipping", "clip", "clip_gradients")
"""Methods of a task by which a subclass may change how gradients are clipped."""


def fused_step(task, own: type, optimizer: Optimizer) -> FusedStep | None:
    """Return what clips and steps in one pass; None where something else is asked for.

    Args:
        own: the class of the task that defines how gradients are clipped, which a subclass of it
            may change.
    """
    if any(getattr(type(task), name) is not getattr(own, name) for name in CLIPPING):
        return None
    gru = getattr(task.model, "gru", None)
    if not isinstance(gru, GRU) or gru.choose_backend(task.optimized[0].device) != "native":
        return None  # backend=torch compiles nothing
    return FusedStep(optimizer) if supports(optimizer) else None


def bound_of_step(task, own: type) -> float | None:
    """Return the bound of a task's clipping, where the step of a CUDA graph may clip by value.

    None where gradients are clipped in another way, or not at all: the task has to do it.
    """
    trainer = task.trainer
    own_way = all(getattr(type(task), name) is getattr(own, name) for name in CLIPPING)
    by_value = own_way and trainer.gradient_clip_algorithm == "value"
    return trainer.gradient_clip_val or None if by_value else None


def fused_update(task) -> bool:
    """Add l2 to a task's gradients, clip and step in one pass; whether that could be done."""
    if task.fused is None:
        return False
    trainer = task.trainer
    algorithm, bound = trainer.gradient_clip_algorithm or "norm", trainer.gradient_clip_val
    stats = task.fused(l2_of_gradients(task), bound, algorithm)
    if stats is not None and task.is_logged():
        task.gradient_stats = {"grad_norm": torch.tensor(stats.norm)}
        if bound and algorithm == "value":
            task.gradient_stats["clipped"] = torch.tensor(stats.clipped)
    return stats is not None


def l2_of_gradients(task) -> float:
    """Return how much of each weight matrix a task's l2 adds to its gradient."""
    stream = task.trainer.datamodule.stream
    rows = stream.batch_size * task.trainer.world_size
    return task.l2 / (rows * stream.seq_len if task.reduction == "mean" else 1)


def add_l2(task) -> None:
    """Add the gradient of a task's l2 to those of its weight matrices; biases (1-D) have no L2."""
    weights = [p for p in task.optimized if p.dim() > 1 and p.grad is not None]
    if weights:
        gradients, scale = [w.grad for w in weights], l2_of_gradients(task)
        torch._foreach_add_(gradients, [w.detach() for w in weights], alpha=scale)


def clip_by_value(gradients: list[Tensor], bound: float) -> None:
    """Clip all elements to [-bound, bound] in place.

    Same as ``torch.nn.utils.clip_grad_value_`` without its grouping by device and dtype, which
    takes 0.1 ms a window; on a GPU with native's kernels in one pass in place of two.
    """
    if gradients[0].is_cuda and many.supports(gradients):
        many.clip(gradients, bound)
        return
    torch._foreach_clamp_min_(gradients, -bound)
    torch._foreach_clamp_max_(gradients, bound)


def before_clipping(task, bound: float | None, logged: bool) -> dict[str, Tensor]:
    """Add the gradient of a task's l2; return the gradients' statistics if they are logged."""
    if task.l2:
        add_l2(task)
    if not logged:
        return {}
    return gradient_stats([p.grad for p in task.optimized if p.grad is not None], bound)


def gradient_stats(gradients: list[Tensor], bound: float | None) -> dict[str, Tensor]:
    """The L2 norm of all gradients together, and the share of elements outside [-bound, bound]."""
    elements = torch.cat([g.flatten() for g in gradients])
    stats = {"grad_norm": elements.norm()}
    if bound is not None:
        stats["clipped"] = (elements.abs() > bound).sum() / elements.numel()
    return stats
