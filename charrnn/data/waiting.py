"""Lines on standard error about what is waited for, so that no wait is silent."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized

import filelock

SECONDS = 5.0
"""After which a wait is named."""


def is_terminal(stream) -> bool:
    """Whether a standard stream is a terminal; there may be none, or one without ``isatty``."""
    return hasattr(stream, "isatty") and stream.isatty()


@contextlib.contextmanager
def say_if_slow(line: str, seconds: float = SECONDS) -> Iterator[None]:
    """Print a line on standard error if the block takes longer than some seconds."""

    def say() -> None:
        print(line, file=sys.stderr, flush=True)

    timer = threading.Timer(seconds, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say_progress(items: Sized, what: str, seconds: float = SECONDS) -> Iterator:
    """Yield items; every few seconds, print a line on standard error with how many are done."""
    update = progress_lines(len(items), what, "windows", seconds)
    for item in items:
        yield item
        update(1)


def progress_lines(
    total: int, what: str, unit: str, seconds: float = SECONDS
) -> Callable[[int], None]:
    """Return a function to call with how much more is done.

    Every few seconds it prints a line on standard error with how much of ``total`` is done.
    """
    done, then = 0, time.monotonic()

    def update(more: int) -> None:
        nonlocal done, then
        done += more
        if (now := time.monotonic()) - then > seconds:
            print(f"{what}: {done:,} of {total:,} {unit}", file=sys.stderr, flush=True)
            then = now

    return update


@contextlib.contextmanager
def hold(lock: filelock.BaseFileLock, line: str, seconds: float = 0.5) -> Iterator[None]:
    """Hold a lock; print a line if another process holds it for longer than some seconds.

    The operating system releases the lock when a process ends, even if it is killed.
    """
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout:
        print(line, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
