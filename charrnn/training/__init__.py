"""One window's step and its state: task, schedulers, precision, distributed."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CharTask": "task",
        "Adaptive": "schedulers",
        "WarmupCosine": "schedulers",
        "Ranks": "distributed",
        "current_ranks": "distributed",
        "is_rank_zero": "distributed",
        "launch": "distributed",
        "mute_stdout": "distributed",
        "rendezvous_store": "distributed",
    },
)
