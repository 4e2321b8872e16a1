"""What happens between windows: metrics, samples, progress, checkpoints."""

import importlib

_HOME = {
    "Checkpoint": "checkpoint",
    "MedianStopping": "median_stopping",
    "Metrics": "metrics",
    "Neurons": "neurons",
    "Progress": "progress",
    "Samples": "samples",
    "rewind_checkpoints": "rewind",
    "rewind_logs": "rewind",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a name when it is first used."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
