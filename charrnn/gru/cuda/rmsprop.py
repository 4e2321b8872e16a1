"""RMSProp's step (Tieleman and Hinton 2012) in one kernel, for CUDA graphs.

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
def step(optimizer: Optimizer, rates: list[Tensor]) -> None:
    """Make a step, with a learning rate in device memory for each group."""
    steps = []
    for group, rate in zip(optimizer.param_groups, rates):
        rows = []
        for p in group["params"]:
            if p.grad is not None:
                state = optimizer.state[p]
                steps.append(state["step"])
                rows.append((p, p.grad.contiguous(), state["square_avg"], 0))
        many.launch("rmsprop", rows, rate, float(group["alpha"]), float(group["eps"]))
    if steps:
        torch._foreach_add_(steps, 1)
