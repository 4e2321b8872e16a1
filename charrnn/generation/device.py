"""Where texts are sampled: on the CPU or on a GPU, by a table of what each takes.

H hidden size, L layers, V vocabulary size.
"""

import torch
from torch import nn

from charrnn.errors import InputError, check
from charrnn.gru.generate import supports_model

DEVICES = ("auto", "cpu", "cuda")
CPU_SECONDS = 10e-6 / 160_000
"""Of a character, for each weight that is read: 10 us at H 128, L 2, V 96 (AMD EPYC with AVX-512),
and 131 to 149 us at H 512."""
GPU_SECONDS = 15e-6
"""Of a step of few samples at H 512, L 2 (H100): 66,777 characters a second. 256 samples at once
take about twice as long."""
GPU_START = 2.0
"""Seconds until a GPU is ready; assumed, not measured."""


def sampling_device(device: str, model: nn.Module, num_samples: int, length: int) -> torch.device:
    """Return where to sample; "auto" takes the faster for that many texts of that length.

    Raises:
        InputError: there is no such device.
    """
    check("device", device, device in DEVICES, "auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: torch sees no NVIDIA GPU; leave it at auto")
    if device != "auto":
        return torch.device(device)
    if not torch.cuda.is_available() or not supports_model(model):
        return torch.device("cpu")
    weights = sum(parameter.numel() for parameter in model.parameters())
    on_cpu = num_samples * length * CPU_SECONDS * weights
    on_gpu = GPU_START + length * GPU_SECONDS * (1 if num_samples <= 8 else 2)
    return torch.device("cuda" if on_gpu < on_cpu else "cpu")
