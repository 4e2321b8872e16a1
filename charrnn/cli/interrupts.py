"""Ctrl-C ends a command at once, also in the middle of a long computation or of an import."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from charrnn.checkpoint.files import remove_own_scratch


@contextlib.contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """End the process with exit code 130 at Ctrl-C, until the block ends.

    Python hears a signal only when a call of a library returns, which on a large model takes
    seconds, and an import that is cut short fails in ways of its own. A thread hears it from the
    system. Files stay as they were: they are exchanged whole, and scratch files are removed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if os.name != "posix" or not in_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    done = threading.Event()
    end, begin = os.pipe()
    os.set_blocking(begin, False)
    before = signal.set_wakeup_fd(begin, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(end, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(begin)  # ends the thread


def _listen(end: int, done: threading.Event) -> None:
    """End the process at the first interrupt that arrives at one end of a pipe."""
    while number := os.read(end, 1):
        if number[0] == signal.SIGINT and not done.is_set():
            remove_own_scratch()
            with contextlib.suppress(OSError):
                os.write(2, b"interrupted\n")
            os._exit(128 + signal.SIGINT)
    os.close(end)


@contextlib.contextmanager
def leaves_at_once() -> Iterator[None]:
    """Of a block that is a whole process: a signal ends it without a second or more of freeing
    what was imported.

    What is registered with atexit runs before.
    """
    codes: list[int] = []
    atexit.register(lambda: codes and _leave(codes[0]))
    try:
        yield
    except SystemExit as end:
        if isinstance(end.code, int) and end.code > 128:
            codes.append(end.code)
        raise


def _leave(code: int) -> None:
    """End the process, unless its output cannot be written: Python has its own way then.

    So it has where joblib has workers, whose semaphores it would otherwise report as leaked.
    """
    if "joblib" in sys.modules:
        return
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
