"""Learning rates over time, beside those of torch.optim.lr_scheduler.

A scheduler whose ``step`` takes a loss is stepped after each validation, every other one after
each window.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from charrnn.errors import check


class WarmupCosine(LambdaLR):
    """Up to the full rate in a straight line, then half a cosine down to a share of it.

    Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Args:
        total_steps: windows of the whole run.
        warmup_steps: windows until the full rate.
        final: what is left at the end, as a share of the full rate.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 100, final: float = 0.0
    ):
        check("warmup_steps", warmup_steps, warmup_steps >= 0, "a whole number, at least 0")
        check("final", final, 0 <= final <= 1, "between 0 and 1")

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            share = (step - warmup_steps) / max(1, total_steps - warmup_steps)
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

        super().__init__(optimizer, factor)


class Adaptive:
    """The rule of the 2016 program, after each validation.

    The rate is multiplied by ``worse`` where the loss is at least 1.03 times the one before, and
    by ``stalled`` where it lies between 0.98 and 1.03 times.
    """

    def __init__(self, optimizer: Optimizer, worse: float = 0.5, stalled: float = 0.8):
        check("worse", worse, 0 < worse <= 1, "above 0, at most 1")
        check("stalled", stalled, 0 < stalled <= 1, "above 0, at most 1")
        self.optimizer, self.worse, self.stalled = optimizer, worse, stalled
        self.last: float | None = None

    def step(self, metrics: float) -> None:
        """Take a validation loss in nats."""
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
