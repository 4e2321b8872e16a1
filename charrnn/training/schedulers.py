"""Learning-rate schedules in addition to those of torch.optim.lr_scheduler.

A scheduler whose ``step`` takes a loss is stepped after each validation, any other after each
window.
"""

import functools
import inspect
import math
from collections.abc import Callable

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from charrnn.errors import check


class WarmupCosine(LambdaLR):
    """Linear warmup to the full learning rate, then half a cosine down to a fraction of it.

    Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Args:
        total_steps: windows of the whole run.
        warmup_steps: windows until the full learning rate.
        final: the learning rate at the end, as a fraction of the full one.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 100, final: float = 0.0
    ):
        check("warmup_steps", warmup_steps, warmup_steps >= 0, "a whole number, at least 0")
        check("final", final, 0 <= final <= 1, "between 0 and 1")

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        super().__init__(optimizer, factor)


class Adaptive:
    """The learning-rate rule of the 2016 program, applied after each validation.

    The learning rate is multiplied by ``worse`` if the validation loss is at least 1.03 times the
    previous one, and by ``stalled`` if it is at least 0.98 times.
    """

    def __init__(self, optimizer: Optimizer, worse: float = 0.5, stalled: float = 0.8):
        check("worse", worse, 0 < worse <= 1, "above 0, at most 1")
        check("stalled", stalled, 0 < stalled <= 1, "above 0, at most 1")
        self.optimizer, self.worse, self.stalled = optimizer, worse, stalled
        self.last: float | None = None

    def step(self, metrics: float) -> None:
        """Update the learning rate from a validation loss in nats."""
        factor = 1.0
        if self.last is not None and metrics >= 0.98 * self.last:
            factor = self.worse if metrics >= 1.03 * self.last else self.stalled
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        self.last = metrics

    def state_dict(self) -> dict[str, float | None]:
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self.last = state["last"]


def restore_scheduler(task, optimizer: Optimizer, saved: dict) -> None:
    """Restore a task's scheduler from a checkpoint, with the arguments that it has now.

    The state of torch's schedulers holds their arguments too. What follows from an argument that
    has changed, such as the number of windows of the run, is that of now; the rest is restored.
    """
    before, now = (_describe(task, *a) for a in ((make_saved(task, saved), _total(saved)), ()))
    state = saved["scheduler"]
    changed = [{k for k in now[i] if k in before[i] and before[i][k] != now[i][k]} for i in (0, 1)]
    task.scheduler.load_state_dict({k: v for k, v in state.items() if k not in changed[0]})
    # OneCycleLR keeps arguments in the optimizer's groups. Rates go on from where they are.
    for group in optimizer.param_groups:
        group.update({k: now[1][k] for k in changed[1] - {"lr", "momentum", "betas"}})


def make_saved(task, saved: dict) -> Callable:
    """The function that makes a scheduler with a checkpoint's settings."""
    settings = saved["settings"].get("scheduler")
    if not settings or not isinstance(task.make_scheduler, functools.partial):
        return task.make_scheduler
    arguments = {k: v for k, v in settings.items() if k not in ("_target_", "_partial_")}
    return functools.partial(task.make_scheduler.func, **arguments)


def _total(saved: dict) -> int | None:
    """The windows of the run when a checkpoint was saved."""
    return saved.get("total_steps") or saved["scheduler"].get("total_steps")


def _describe(task, make: Callable | None = None, total: int | None = None) -> tuple[dict, dict]:
    """The state of a scheduler that was just made, and the optimizer's group beside it."""
    make, total = make or task.make_scheduler, total or task.total_steps()
    optimizer = task.make_optimizer([torch.zeros(1, requires_grad=True)])
    takes_total = "total_steps" in inspect.signature(make).parameters
    scheduler = make(optimizer, **{"total_steps": total} if takes_total else {})
    (group,) = optimizer.param_groups
    return scheduler.state_dict(), {k: v for k, v in group.items() if k != "params"}
