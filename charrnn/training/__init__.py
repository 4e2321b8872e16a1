"""One window's step and its state: task, schedulers, precision, distributed."""

import importlib

_HOME = {
    "CharTask": "task",
    "Adaptive": "schedulers",
    "WarmupCosine": "schedulers",
    "Ranks": "distributed",
    "current_ranks": "distributed",
    "is_rank_zero": "distributed",
    "launch": "distributed",
    "mute_stdout": "distributed",
    "rendezvous_store": "distributed",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a name when it is first used: some files need neither torch nor Lightning."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
