"""Divergence: losses and weights that are not finite, and spikes above the running mean loss."""

import math

import torch
from torch import Tensor, nn

DECAY = 0.01
"""Weight of a new loss in the running mean, which so spans some hundred windows."""


class DivergenceMonitor:
    """Running mean of the training loss, and the largest ratio of a loss to it.

    Updating needs no transfer from the device; only :meth:`describe` does.

    Args:
        spike_factor: a loss is a spike if it is larger than this many times the running mean; None
            detects no spikes.
    """

    def __init__(self, spike_factor: float | None = None):
        self.spike_factor = spike_factor
        self.mean_loss: Tensor | None = None
        self.spike = torch.zeros(())
        """The largest loss / mean_loss since the last :meth:`describe`."""

    def update(self, loss: Tensor) -> None:
        """Compare a window's loss (a scalar tensor) with the running mean, then include it."""
        if self.spike_factor is None:
            return
        mean = loss if self.mean_loss is None else self.mean_loss
        self.spike = torch.maximum(self.spike.to(loss), loss / mean)
        self.mean_loss = mean + DECAY * (loss - mean)

    def describe(self, loss: Tensor) -> str:
        """Describe how the training diverged, given the last loss; empty if it did not."""
        if not math.isfinite(value := loss.item()):
            return f"the loss is {value}"
        if self.spike_factor is not None:
            ratio, self.spike = self.spike.item(), torch.zeros(())
            if ratio > self.spike_factor:
                return f"the loss is {ratio:.3g} times its running mean"
        return ""


def has_finite_parameters(module: nn.Module) -> bool:
    """Whether no parameter of a module holds NaN or infinity."""
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())
