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
    file.write(sorted_metadata(import_extra("safetensors.torch").save(tensors, metadata)))


def sorted_metadata(content: bytes) -> bytes:
    """The same file with its metadata in the order of their keys.

    The library writes them in an order of chance, and the same model shall be the same bytes. A
    file is the length of its header in 8 bytes, the header as JSON with spaces after it, and data.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    return len(text).to_bytes(8, "little") + text + content[end:]
