"""What happens between windows: metrics, samples, progress, checkpoints."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Checkpoint": "checkpoint",
        "Metrics": "metrics",
        "Neurons": "neurons",
        "Progress": "progress",
        "Pruning": "pruning",
        "Report": "report",
        "Samples": "samples",
        "StochasticWeightAveraging": "averaging",
        "rewind_checkpoints": "rewind",
        "rewind_logs": "rewind",
    },
)
