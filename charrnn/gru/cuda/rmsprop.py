"""RMSProp's step (Tieleman and Hinton 2012) in one kernel a parameter, for CUDA graphs.

torch.optim.RMSprop has no fused form; in a graph its step is eight kernels over all parameters,
which were 88 of 800 us of a training step at H 128, L 2, B 16 (H100).
"""

import torch
from torch import Tensor
from torch.optim import Optimizer, RMSprop

from charrnn.gru.cuda import nvrtc
from charrnn.gru.cuda.rows import index_of

OTHER_FORMS = ("momentum", "centered", "weight_decay", "maximize", "differentiable")
BLOCKS = 528
"""Thread blocks at most: some for each multiprocessor."""


def kernels(index: int):
    """Those of ``rmsprop.cu``, on the GPU of an index. Raises nvrtc.Unavailable."""
    return nvrtc.module(("rmsprop.cu",), (), index)


def supports(optimizer: Optimizer) -> bool:
    """Whether :func:`step` does what the optimizer's step does; its state must exist."""
    groups = optimizer.param_groups
    if type(optimizer) is not RMSprop or any(group[k] for group in groups for k in OTHER_FORMS):
        return False
    parameters = [p for group in groups for p in group["params"]]
    if any(p.dtype != torch.float32 or not p.is_contiguous() for p in parameters):
        return False
    try:
        kernels(index_of(parameters[0].device))
    except nvrtc.Unavailable:
        return False
    return all("square_avg" in optimizer.state.get(p, {}) for p in parameters)


@torch.no_grad()
def step(optimizer: Optimizer, rates: list[Tensor]) -> None:
    """Make a step, with a learning rate in device memory for each group."""
    steps = []
    for group, rate in zip(optimizer.param_groups, rates):
        for p in group["params"]:
            if p.grad is None:
                continue
            state = optimizer.state[p]
            steps.append(state["step"])
            kernels(index_of(p.device)).launch(
                "rmsprop", (min(-(-p.numel() // 256), BLOCKS),), p, p.grad.contiguous(),
                state["square_avg"], rate, float(group["alpha"]), float(group["eps"]), p.numel(),
            )  # fmt: skip
    if steps:
        torch._foreach_add_(steps, 1)
