"""Private names of TensorBoard: event files read and rewritten, its writer reopened.

No other file of this room touches them. tests/callbacks/test_event_files.py fails when TensorBoard
changes them.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from charrnn.checkpoint.files import atomic_write
from charrnn.errors import escape_control

PATTERN = "events.out.tfevents.*"
BY_CHARACTERS = "versus_characters/"
"""Prefix of the tags whose step counts characters and not windows. TensorBoard sorts tags:
``train`` and ``val`` come before it."""
WAS_BY_CHARACTERS = "by_characters/"
"""What the prefix was in 0.1."""
PREFIXES = BY_CHARACTERS, WAS_BY_CHARACTERS


def rewind_event_files(folder: Path, windows: int, characters_per_window: int) -> None:
    """Remove from a folder's event files all events after a window.

    Each file is replaced atomically. ``purge_step`` of TensorBoard's writer cannot do this: it
    would remove the events that count characters too.
    """
    files = sorted(folder.glob(PATTERN))
    # TensorBoard reads files in the order of the seconds in their names. In the same second, or
    # after the clock was set back, these may follow the next one; they are renamed to come first.
    ahead = any(file.name.split(".")[3] >= f"{int(time.time()):010d}" for file in files)
    for number, file in enumerate(files):
        records = RawEventFileLoader(str(file)).Load()
        records = [r for r in records if window_of(r, characters_per_window) <= windows]
        with atomic_write(file) as f:
            for record in records:
                RecordWriter(f).write(record)
        if ahead:
            rest = file.name.split(".", 4)[4]
            file.rename(file.with_name(f"events.out.tfevents.{number:010d}.{rest}"))


def window_of(record: bytes, characters_per_window: int) -> float:
    """The window of a serialized event; -1 for a file's header, which belongs to none."""
    event = Event.FromString(record)
    if not event.HasField("summary"):
        return -1
    by_characters = any(value.tag.startswith(PREFIXES) for value in event.summary.value)
    return event.step / characters_per_window if by_characters else event.step


def add_hparams(logger, values: dict, metrics: Iterable[str]) -> None:
    """Add hyperparameters to a logger's own run; ``add_hparams`` would make a run for each call."""
    writer = logger.experiment._get_file_writer()
    texts = {k: escape_control(v) if isinstance(v, str) else v for k, v in values.items()}
    for summary in hparams(texts, dict.fromkeys(metrics, 0)):
        writer.add_summary(summary, 0)


def add_numbers(logger, numbers: dict[str, float], step: int) -> None:
    """Log the numbers of a step as one event.

    ``log_metrics`` writes one for each, and wakes the writer's thread each time, which costs 2 ms
    for eight numbers.
    """
    values = [value for item in numbers.items() for value in scalar(*item).value]
    logger.experiment._get_file_writer().add_summary(Summary(value=values), step)


def reopen(logger) -> None:
    """Have a logger open a new event file at the next write: a writer that failed keeps failing."""
    logger.experiment.file_writer = logger.experiment.all_writers = None


def is_event_writer(thread) -> bool:
    """Whether a thread belongs to TensorBoard's asynchronous writer."""
    return "AsyncWriter" in type(thread).__name__
