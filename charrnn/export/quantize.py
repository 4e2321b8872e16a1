"""Weights in 32, 16 or 8 bits: the bytes of a page, and the values that they stand for."""

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.models.verify import copy_model

BITS = (32, 16, 8)


def quantize(weight: Tensor, bits: int) -> tuple[bytes, Tensor]:
    """Return the bytes of a parameter, little-endian, and the float32 values that they stand for.

    Vectors stay float32. A matrix is float32, float16, or int8 with one float32 a row in front of
    them, 1/127 of the largest absolute value of the row.
    """
    values = weight.detach().float().cpu().numpy()
    if bits == 32 or values.ndim == 1:
        return values.astype("<f4").tobytes(), torch.from_numpy(values.copy())
    if bits == 16:
        halves = values.astype("<f2")
        return halves.tobytes(), torch.from_numpy(halves.astype(np.float32))
    scales = np.maximum(np.abs(values).max(1, keepdims=True) / np.float32(127), np.float32(1e-30))
    whole = np.rint(values / scales).astype(np.int8)
    data = scales.astype("<f4").tobytes() + whole.tobytes()
    return data, torch.from_numpy(whole * scales.astype(np.float32))


def quantize_model(model: nn.Module, bits: int) -> tuple[list[dict], bytes, nn.Module]:
    """Return the parameters' names, shapes and offsets, their bytes, and a model with them."""
    other = copy_model(model).float()
    parameters, tensors, data = dict(other.named_parameters()), [], bytearray()
    for name, weight in model.named_parameters():
        part, values = quantize(weight, bits)
        with torch.no_grad():
            parameters[name].copy_(values)
        kind = bits if weight.dim() == 2 else 32
        tensors.append({"name": name, "shape": list(weight.shape), "at": len(data), "bits": kind})
        data += part + bytes(-len(part) % 4)
    return tensors, bytes(data), other.eval()
