"""Learning-rate schedules in addition to those of torch.optim.lr_scheduler.

A scheduler whose ``step`` takes a loss is stepped after each validation, any other after each
window.
"""

import math

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
