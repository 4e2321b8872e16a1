"""RMSProp's step (Tieleman and Hinton 2012) and clipping in one kernel, for CUDA graphs.

torch.optim.RMSprop has no fused form; in a graph its step is eight kernels over all parameters,
which were 88 of 800 us of a training step at H 128, L 2, B 16 (H100).
"""

import torch
from torch import Tensor
from torch.optim import Optimizer, RMSprop

from charrnn.gru.cuda import many

OTHER_FORMS = ("momentum", "centered", "weight_decay", "maximize", "differentiable")


def supports(optimizer: Optimizer) -> bool:
    """Whether :func:`step` does what the optimizer's step does; its state must exist."""
    groups = optimizer.param_groups
    if type(optimizer) is not RMSprop or any(group[k] for group in groups for k in OTHER_FORMS):
        return False
    parameters = [p for group in groups for p in group["params"]]
    known = all("square_avg" in optimizer.state.get(p, {}) for p in parameters)
    return known and many.supports(parameters)


@torch.no_grad()
def step(optimizer: Optimizer, rates: list[Tensor], bound: float | None = None) -> None:
    """Clip gradients to [-bound, bound], and make a step, in one pass.

    Args:
        rates: a learning rate in device memory for each group.
        bound: None does not clip. Gradients hold what was clipped afterwards.
    """
    elsewhere, bound = [], float("inf" if bound is None else bound)
    for group, rate in zip(optimizer.param_groups, rates):
        rows = []
        for p in group["params"]:
            if p.grad is None:
                continue
            if not p.grad.is_contiguous():
                p.grad = p.grad.contiguous()
            state = optimizer.state[p]
            count = state["step"]
            if (count.device, count.dtype) != (p.device, p.dtype):  # torch may keep it on the host
                elsewhere.append(count)
                count = None
            rows.append((p, p.grad, state["square_avg"], count, 0))
        many.launch("rmsprop", rows, rate, float(group["alpha"]), float(group["eps"]), bound)
    if elsewhere:
        torch._foreach_add_(elsewhere, 1)
