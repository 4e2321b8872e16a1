"""Validation: mean nats over the validation text, and which validations are compared."""

import math

import torch
from torch import nn

from charrnn.data.stream import Window
from charrnn.models import contract


class Totals:
    """Nats and characters of the windows that were validated so far.

    Args:
        windows: :class:`charrnn.data.EvaluationWindows`.
    """

    def __init__(self, model: nn.Module, windows, device: torch.device):
        self.model, self.state = model, contract.warm_state(model, windows)
        self.nats = torch.zeros((), dtype=torch.float64, device=device)
        self.characters = 0

    def add(self, window: Window) -> None:
        """Validate a window, from the state that the one before it left."""
        nats, self.state = contract.nll(self.model, window.inputs, window.targets, self.state)
        self.nats += nats.sum(dtype=torch.float64)
        self.characters += int((window.targets >= 0).sum())

    @property
    def mean(self) -> float:
        """Nats per character."""
        return self.nats.item() / max(1, self.characters)


class Validations(list):
    """[windows, mean nats] of every validation, the untrained one first.

    Losses are compared only where they are over the same text, which ``limit_val_batches`` and
    ``num_sanity_val_steps`` may change within a run.

    Attributes:
        characters: of the last validation; None where it is not known, as in runs of 0.1.
        first: number of the first validation over the same text as the last one.
    """

    def __init__(self, entries=(), characters: int | None = None, first: int = 0):
        super().__init__(entries)
        self.characters, self.first = characters, first

    def add(self, windows: int, loss: float, characters: int) -> bool:
        """Add a validation; returns whether it may be compared with the one before it.

        A second one of a window, which a callback has made of other weights, replaces the first.
        """
        if self and self[-1][0] == windows:
            self.pop()
        same = not self or self.characters in (None, characters)
        if not same:
            self.first = len(self)
        self.characters = characters
        self.append([windows, loss])
        return same

    @property
    def comparable(self) -> list[list[float]]:
        """The validations over the same text as the last one."""
        return self[self.first :]

    @property
    def best(self) -> float:
        """The lowest loss over the text of the last validation; infinity without any."""
        return min((loss for _, loss in self.comparable), default=math.inf)

    def state_dict(self) -> dict:
        """What a checkpoint holds, in plain containers."""
        return {
            "validations": list(self),
            "validation_text": {"characters": self.characters, "first": self.first},
        }

    @classmethod
    def from_state(cls, saved: dict) -> "Validations":
        """Those of a checkpoint's dictionary."""
        return cls(saved["validations"], **saved.get("validation_text", {}))


def forget_losses(scheduler) -> None:
    """Have a scheduler that compares losses, ours or torch's, begin with the next one."""
    for name, value in (("last", None), ("best", math.inf), ("num_bad_epochs", 0)):
        if hasattr(scheduler, name):
            setattr(scheduler, name, value)
