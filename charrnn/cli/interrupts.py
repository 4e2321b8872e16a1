"""Ctrl-C ends a command at once, also in the middle of a long computation or of an import."""

import contextlib
import os
import signal
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
