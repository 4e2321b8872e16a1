"""An estimate of the memory that a run takes, beside what is free, before anything is allocated.

T time steps, B rows, L layers, H hidden size, V vocabulary size.
"""

import contextlib
import os
from pathlib import Path

import torch
from torch import nn

from charrnn.models.state import leaves

STATES = {"Adam": 2, "AdamW": 2, "RMSprop": 1, "SGD": 0}
"""Numbers per parameter that an optimizer keeps; 2 of others."""


def needed_bytes(model: nn.Module, length: int, rows: int, optimizer: str, is_native: bool) -> int:
    """Estimate the bytes of a training step in 32-true.

    Per parameter: weight, gradient, the optimizer's states and a temporary of its step. Per
    character of a window: 5 values of each unit and layer in the native kernels and 10 elsewhere,
    5 more of the last layer, and 3 of each logit, as measured on a CPU from H 256 to 1000.

    Args:
        model: a model of charrnn, also on the meta device.
        length, rows: T and B.
        optimizer: the name of its class.
    """
    parameters = sum(p.numel() for p in model.parameters())
    vocab_size, hidden_size = model.decoder.weight.shape
    units = sum(part.numel() for part in leaves(model.initial_state(1)))  # L H of a GRU
    character = (5 if is_native else 10) * units + 5 * hidden_size + 3 * vocab_size
    return 4 * (parameters * (3 + STATES.get(optimizer, 2)) + length * rows * character)


def free_bytes(device: torch.device) -> int | None:
    """The bytes that this process can still take; None where that is not known.

    On a CPU the least of the machine's, of the control group's and of ``ulimit -v``.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{n}").read_text()) for n in ("max", "current"))
        found.append(limit - used)
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        if limit != resource.RLIM_INFINITY:
            found.append(limit - pages * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def shortage(needed: int, free: int | None) -> str:
    """A line where a run needs more memory than is free; empty where it does not."""
    if free is None or needed <= free:
        return ""
    return (
        f"memory: this run needs about {size(needed)}, and {size(max(0, free))} are free; a smaller"
        " model.hidden_size, data.batch_size or data.seq_len takes less"
    )


def size(count: int) -> str:
    """Bytes as MB or GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
