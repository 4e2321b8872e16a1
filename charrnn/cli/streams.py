"""Standard output and error: streams that a full disk does not stop, and logs without controls."""

import contextlib
import errno
import logging
import sys
import typing
from collections.abc import Iterator

from charrnn.errors import escape_control

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Error numbers of a disk that is full or defective."""


class LenientStream:
    """A stream that loses what a full disk does not take, so that a log ends no training."""

    def __init__(self, stream: typing.TextIO):
        self.stream = stream

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress_full_disk():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress_full_disk():
            self.stream.flush()


def make_lenient() -> None:
    """Have standard output and error survive a full disk."""
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), LenientStream):
            setattr(sys, name, LenientStream(stream))


@contextlib.contextmanager
def suppress_full_disk() -> Iterator[None]:
    """Ignore an error of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise


def escaped_record(*args, **kwargs) -> logging.LogRecord:
    """A log record without control characters: Hydra logs every job's overrides."""
    record = logging.LogRecord(*args, **kwargs)
    record.msg, record.args = escape_control(record.getMessage()), ()
    return record
