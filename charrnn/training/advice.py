"""Lightning's logs and advice that are left out: about what is done on purpose here."""

import logging
import warnings

IGNORED_ADVICE = (
    "You're resuming from a checkpoint that ended",
    "The number of training batches",
    "Total length of `list` across ranks is zero",
    ".*LeafSpec.*",
    "Checkpoint directory .* exists and is not empty",
)
"""Beginnings of Lightning's warnings about what is done on purpose here."""


def quiet_lightning() -> None:
    """Leave out Lightning's logs, and its advice about what is done on purpose."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IGNORED_ADVICE:
        warnings.filterwarnings("ignore", message=message)
