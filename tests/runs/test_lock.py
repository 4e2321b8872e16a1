"""The lock of a run's folder: one holder, also in other processes, for as long as they live."""

import errno
import os
import subprocess
import sys
import time

import filelock
import pytest

from charrnn.runs.lock import RunLock, is_running, run_lock

HOLD = """
import sys, time
from pathlib import Path
from charrnn.runs.lock import run_lock
with run_lock(Path(sys.argv[1])) as lock:
    print(lock is not None, flush=True)
    time.sleep(60)
"""


def test_second_holder_gets_none(tmp_path):
    assert not is_running(tmp_path)
    with run_lock(tmp_path) as first:
        assert isinstance(first, RunLock) and is_running(tmp_path)
        with run_lock(tmp_path, timeout=0.05) as second:
            assert second is None
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
    with run_lock(tmp_path) as third:
        assert third is not None


def test_killed_process_releases_its_lock(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n" and is_running(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not is_running(tmp_path)


def test_inherited_descriptor_holds_the_lock(tmp_path):
    """``RunLock.fileno()`` reads filelock's private ``_context.lock_file_fd``."""
    with run_lock(tmp_path) as held:
        descriptor = held.fileno()
        assert (tmp_path / ".hydra" / "lock").samefile(f"/proc/self/fd/{descriptor}")
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
        )
        # Like a process that is killed: its descriptor is closed, and nothing is released.
        held.lock._context.lock_file_fd = None
        os.close(descriptor)
        assert is_running(tmp_path)
        child.communicate(b"\n")
    assert not is_running(tmp_path)


def test_looking_does_not_refuse_a_run(tmp_path):
    """is_running holds the lock for a moment; a run waits for that."""
    (tmp_path / ".hydra").mkdir()
    looker = filelock.FileLock(tmp_path / ".hydra" / "lock")
    looker.acquire()
    begin = time.monotonic()
    with run_lock(tmp_path, timeout=0.1) as held:
        assert held is None and time.monotonic() - begin >= 0.1
    looker.release()
    with run_lock(tmp_path) as held:
        assert held is not None


@pytest.mark.parametrize(
    "error", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available")], ids=repr
)
def test_file_system_without_locks_refuses_no_run(tmp_path, monkeypatch, error):
    def fail(self, *args, **kwargs):
        raise error

    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "lock").touch()
    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with run_lock(tmp_path) as held:
        assert held is not None and held.fileno() is None
    assert not is_running(tmp_path)


def test_only_rank_zero_locks(tmp_path, monkeypatch):
    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    with run_lock(tmp_path) as held:
        assert held.fileno() is None and not is_running(tmp_path)
