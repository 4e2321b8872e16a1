"""Standard output and error: streams whose failures end no training; logs without controls."""

import contextlib
import errno
import io
import logging
import os
import sys
import typing
from collections.abc import Iterator

from charrnn.errors import escape_control

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Error numbers of a disk that is full or defective."""
UNWRITABLE = (
    *FULL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)
"""Error numbers of a file that cannot be opened or written, for which the program is no cause."""
GONE = (errno.EPIPE, errno.EBADF, errno.ENXIO)
"""Error numbers of a pipe without a reader, and of a closed terminal or file."""


class Nowhere(io.TextIOBase):
    """A stream that loses what is written, in place of one that is not there."""

    def write(self, text: str) -> int:
        return len(text)


class LenientStream:
    """A stream that loses what it cannot write, so that no training ends for its output.

    That is so on a full disk, when the reader of a pipe or the terminal is gone, and when the
    stream was closed from the beginning (``>&-``).
    """

    def __init__(self, stream: typing.TextIO):
        self.stream = stream

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress_lost_output():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress_lost_output():
            self.stream.flush()


class PrefixedStream:
    """A stream whose lines begin with a name, for jobs that write to one stream at once.

    Lines are written whole, so that those of two processes do not mix.
    """

    def __init__(self, stream: typing.TextIO, name: str):
        self.stream, self.prefix, self.held = stream, f"{name}: ", ""

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        """False: a progress bar would be one of several on the same line."""
        return False

    def write(self, text: str) -> int:
        *lines, self.held = (self.held + text).split("\n")
        if lines:
            self.stream.write("".join(f"{self.prefix}{line}\n" for line in lines))
            self.stream.flush()
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


@contextlib.contextmanager
def prefixed_output(name: str) -> Iterator[None]:
    """Begin each line of standard output and error with a name, until the block ends."""
    before = sys.stdout, sys.stderr
    streams = [s and PrefixedStream(s, name) for s in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in filter(None, streams):
            if stream.held:
                stream.write("\n")


def reserve_descriptors() -> None:
    """Open /dev/null as standard input, output and error where these were closed.

    Otherwise the next files that are opened would get their numbers, and what libraries write to
    standard error would go into them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:  # or print() would take standard output for it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")


def make_lenient() -> None:
    """Make standard output and error lose what they cannot write and escape what is unknown."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = Nowhere()
        if not isinstance(stream, LenientStream):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, LenientStream(stream))


@contextlib.contextmanager
def suppress_lost_output() -> Iterator[None]:
    """Ignore what a stream raises that cannot be written to any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, *GONE):
            raise


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
