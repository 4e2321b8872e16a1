"""The lock of a run's folder, RUN/.hydra/lock: only one run trains in a folder.

The system releases the lock when its process ends, however it ends. filelock's private
``_context`` is touched in this file only; tests/runs/test_lock.py fails when it changes.
"""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from charrnn.training.distributed import is_rank_zero

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems without locks."""


@dataclass(frozen=True)
class RunLock:
    """A lock that is held.

    Args:
        lock: None where there is nothing to lock: ranks other than rank zero, and file systems
            without locks, where a second run is not refused.
    """

    lock: filelock.BaseFileLock | None

    def fileno(self) -> int | None:
        """The open descriptor of the lock file; a process that inherits it holds the lock too."""
        return self.lock._context.lock_file_fd if self.lock else None


@contextlib.contextmanager
def run_lock(run: Path, timeout: float = 1.0) -> Iterator[RunLock | None]:
    """Hold the lock of a run's folder; yields None if another process holds it.

    Args:
        run: the run's folder.
        timeout: seconds to wait for it; :func:`is_running` holds it for a moment.
    """
    lock = _file_lock(run) if is_rank_zero() else None
    if lock is None:
        yield RunLock(None)
        return
    Path(lock.lock_file).parent.mkdir(exist_ok=True)
    try:
        lock.acquire(timeout=timeout, poll_interval=0.02)
    except filelock.Timeout:
        yield None
        return
    except NotImplementedError:
        lock = None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lock = None
    try:
        yield RunLock(lock)
    finally:
        if lock:
            lock.release()


def is_running(run: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    lock = _file_lock(run)
    if not Path(lock.lock_file).exists():
        return False
    try:
        # Long enough for another process that does the same to release it.
        with lock.acquire(timeout=0.05, poll_interval=0.01):
            return False
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def _file_lock(run: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(run / ".hydra" / "lock")
