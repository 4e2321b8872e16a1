"""Whether the products of the kernels for CPUs take bfloat16 operands, and by which instructions.

Under ``torch.autocast("cpu", torch.bfloat16)``, and so with ``trainer.precision=bf16-mixed``, the
products of the layers and of the decoder and all weight gradients round their operands to bfloat16
and add up in float32. Everything else is float32, as without autocast.

The environment variable ``CHARRNN_BF16`` chooses: ``auto`` (the default) takes AMX where the
processor and the system have it; ``amx`` and ``avx512`` (AVX512-BF16) insist on these instructions;
``off`` computes in float32. ``auto`` never takes AVX512-BF16: on an Intel Xeon it was slower than
float32 (0.6 to 0.8 times as fast), and on other processors it has not been measured.
"""

import functools
import os

import torch

from charrnn.errors import InputError
from charrnn.gru import build
from charrnn.gru.module import print_once

VARIABLE = "CHARRNN_BF16"
PATHS = {"off": 0, "avx512": 1, "amx": 2}
"""Numbers of ``csrc/bf16_path.h``; 0 is float32."""


def path() -> int:
    """Return the path under the autocast that is in force: a number of ``PATHS``, 0 for float32.

    Raises:
        InputError: the environment variable asks for what there is not.
    """
    enabled = torch.is_autocast_enabled("cpu")
    if not enabled or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return 0
    name = os.environ.get(VARIABLE, "auto")
    number = choose(name)
    if name == "auto" and not number:
        print_once("bf16-mixed on this CPU computes in float32: it has no AMX instructions")
    return number


@functools.cache
def choose(name: str) -> int:
    """Return the path that a value of the environment variable names; see :func:`path`."""
    best = build.library().bf16_path()
    if name == "auto":
        return best if best == PATHS["amx"] else 0
    if name not in PATHS:
        raise InputError(f"{VARIABLE}={name}: must be auto, {', '.join(PATHS)}")
    if PATHS[name] > best:
        raise InputError(f"{VARIABLE}={name}: this machine does not have these instructions")
    return PATHS[name]


def why_not() -> str | None:
    """Return why :func:`path` is 0 under autocast with bfloat16 too; None if it is not."""
    try:
        name = os.environ.get(VARIABLE, "auto")
        if choose(name):
            return None
        return f"{VARIABLE}=off" if name == "off" else "this CPU has no AMX instructions"
    except build.BuildError as error:
        return str(error)
