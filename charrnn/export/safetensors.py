"""safetensors: the parameters under their names, and the description as JSON in the metadata."""

import json
from typing import BinaryIO

from torch import nn

from charrnn import checkpoint
from charrnn.export.extra import import_extra


def write(model: nn.Module, description: dict, file: BinaryIO) -> None:
    """Write the model. :func:`charrnn.checkpoint.format.read_safetensors` is the reader."""
    # Cloned, because tied parameters share memory, which the format has no form for.
    tensors = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    prefixed = {checkpoint.PREFIX + k: v for k, v in tensors.items()}
    description = description | {"sha256": checkpoint.checksum(description, prefixed)}
    metadata = {"format": "pt", checkpoint.METADATA: json.dumps(description)}
    file.write(import_extra("safetensors.torch").save(tensors, metadata))
