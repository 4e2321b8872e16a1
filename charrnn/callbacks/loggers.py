"""Writing to the trainer's loggers, such that a full disk does not end the training."""

import threading
from collections.abc import Callable

from tqdm import tqdm

from charrnn.callbacks.event_files import add_hparams, is_event_writer, reopen
from charrnn.errors import escape_control

_failing: set[int] = set()
"""Ids of the loggers whose last write failed, to report each failure once."""


def to_loggers(trainer, write: Callable) -> None:
    """Call ``write(logger)`` for each logger of rank zero.

    What cannot be written is lost, and reported in one line.
    """
    for logger in trainer.loggers if trainer.is_global_zero else ():
        try:
            write(logger)
            _failing.discard(id(logger))
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__  # Lightning wraps it
            if not isinstance(cause, OSError):
                raise
            reopen(logger)
            if id(logger) not in _failing:
                _failing.add(id(logger))
                line = f"{logger.log_dir}: cannot be written ({cause.strerror}); its curves have a"
                tqdm.write(escape_control(f"{line} gap from window {trainer.global_step} on"))


def flush(logger) -> None:
    """Write a logger's buffered data to disk."""
    logger.save()
    if hasattr(logger.experiment, "flush"):
        logger.experiment.flush()


def add_text(trainer, name: str, text: str, windows: int) -> None:
    """Log a text verbatim: indented by four spaces it is a code block in TensorBoard's Markdown."""
    indented = "".join(f"    {line}\n" for line in escape_control(text).split("\n"))

    def add(logger) -> None:
        if hasattr(logger.experiment, "add_text"):
            logger.experiment.add_text(name, indented, windows)

    to_loggers(trainer, add)


def add_hyperparameters(trainer, values: dict) -> None:
    """Log the settings of a run for TensorBoard's HPARAMS, with its last and best validation."""

    def add(logger) -> None:
        if hasattr(logger.experiment, "add_hparams"):
            add_hparams(logger, values, ("val/best_bpc", "val/bpc"))

    to_loggers(trainer, add)


def ignore_writer_threads() -> None:
    """Print no traceback when a thread of TensorBoard's writer fails: to_loggers reports it."""

    def hook(args) -> None:
        if not (isinstance(args.exc_value, OSError) and is_event_writer(args.thread)):
            threading.__excepthook__(args)

    threading.excepthook = hook
