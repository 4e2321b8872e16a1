"""Writing to the trainer's loggers, such that a full disk does not end the training."""

import contextlib
import threading
from collections.abc import Callable

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger
from tqdm import tqdm

from charrnn.callbacks.event_files import add_hparams, add_numbers, is_event_writer, reopen
from charrnn.callbacks.relay import Relay
from charrnn.errors import escape_control, escape_text

_failing: set[int] = set()
"""Ids of the loggers whose last write failed, to report each failure once."""


def to_loggers(trainer, write: Callable) -> None:
    """Call ``write(logger)`` for each logger of rank zero.

    What cannot be written is lost, and reported in one line.
    """
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, Relay | DummyLogger):  # metrics.csv, and that of fast_dev_run
            continue
        try:
            write(logger)
            _failing.discard(id(logger))
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__  # Lightning wraps it
            if not isinstance(cause, OSError):
                raise
            if isinstance(logger, TensorBoardLogger):
                reopen(logger)
            if id(logger) not in _failing:
                _failing.add(id(logger))
                name = logger.log_dir or logger.save_dir or type(logger).__name__
                reason = cause.strerror or cause
                line = f"{name}: cannot be written ({reason}); its curves have a"
                tqdm.write(escape_control(f"{line} gap from window {trainer.global_step} on"))


def to_tensorboard(trainer, write: Callable) -> None:
    """Call ``write(logger)``, as :func:`to_loggers` does, for loggers that write as TensorBoard."""

    def if_tensorboard(logger) -> None:
        if hasattr(experiment_of(logger), "add_text"):
            write(logger)

    to_loggers(trainer, if_tensorboard)


def log_numbers(logger, numbers: dict[str, float], step: int) -> None:
    """Log numbers by a logger's ``log_metrics``, or by what does the same faster."""
    if type(logger) is TensorBoardLogger and not logger._prefix:
        add_numbers(logger, numbers, step)
    else:
        logger.log_metrics(numbers, step=step)


def flush(logger) -> None:
    """Write a logger's buffered data to disk."""
    logger.save()
    if hasattr(experiment_of(logger), "flush"):
        logger.experiment.flush()


def experiment_of(logger):
    """What a logger writes with; None for one of the user's that has none, as Lightning allows."""
    return getattr(logger, "experiment", None)


def add_text(trainer, name: str, text: str, windows: int) -> None:
    """Log a text verbatim: indented by four spaces it is a code block in TensorBoard's Markdown."""
    indented = "".join(f"    {line}\n" for line in escape_text(text).split("\n"))

    to_tensorboard(trainer, lambda logger: logger.experiment.add_text(name, indented, windows))


def add_hyperparameters(trainer, settings: dict, varied: dict) -> None:
    """Log the settings of a run.

    TensorBoard's HPARAMS get those that vary between runs, with the last and best validation;
    other loggers all of them.
    """

    def add(logger) -> None:
        if isinstance(logger, TensorBoardLogger):
            add_hparams(logger, varied, ("val/best_bpc", "val/bpc"))
        else:
            logger.log_hyperparams(settings)

    to_loggers(trainer, add)


def open_loggers(trainer) -> None:
    """Open TensorBoard's files; Lightning tries again, as a run begins, where that fails."""
    ignore_writer_threads()
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, TensorBoardLogger):
            with contextlib.suppress(OSError):
                logger.experiment  # noqa: B018


def ignore_writer_threads() -> None:
    """Print no traceback when a thread of TensorBoard's writer fails: to_loggers reports it."""

    def hook(args) -> None:
        if not (isinstance(args.exc_value, OSError) and is_event_writer(args.thread)):
            threading.__excepthook__(args)

    threading.excepthook = hook
