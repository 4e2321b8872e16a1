"""torch: plain dictionaries of tensors for the modules of a model, readable with weights_only."""

from typing import BinaryIO

from torch import nn

from charrnn.checkpoint import serialization


def write(model: nn.Module, description: dict, file: BinaryIO) -> None:
    """Write the description, a state dict for each module that has parameters, and the rest.

    The rest are parameters and buffers of the model itself, under their names.
    """
    parts = {name: dict(part.state_dict()) for name, part in model.named_children()}
    parts = {name: part for name, part in parts.items() if part}
    own = {name: value for name, value in model.state_dict().items() if "." not in name}
    serialization.write(description | parts | own, file)
