"""torch: plain dictionaries of tensors for the modules of a model, readable with weights_only."""

from typing import BinaryIO

import torch
from torch import nn


def write(model: nn.Module, description: dict, file: BinaryIO) -> None:
    """Write the description, and a state dict for each module that has parameters."""
    parts = {name: dict(part.state_dict()) for name, part in model.named_children()}
    torch.save(description | {name: part for name, part in parts.items() if part}, file)
