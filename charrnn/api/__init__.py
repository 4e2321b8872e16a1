"""The Python interface: train, load, LanguageModel."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "LanguageModel": "language_model",
        "TrainingRun": "training_run",
        "load": "language_model",
        "train": "training_run",
    },
)
