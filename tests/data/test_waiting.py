"""What is waited for is named, after some time."""

import fcntl
import threading
import time

import filelock

from charrnn.data.waiting import hold, say_if_slow, say_progress


def test_only_a_slow_block_is_named(capsys):
    with say_if_slow("waiting", 30):
        pass
    with say_if_slow("waiting for it", 0.01):
        time.sleep(0.1)
    assert capsys.readouterr().err == "waiting for it\n"


def test_the_holder_of_a_lock_is_waited_for(tmp_path, capsys):
    with open(tmp_path / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.1, fcntl.flock, [other, fcntl.LOCK_UN]).start()
        lock = filelock.FileLock(tmp_path / "lock")
        with hold(lock, "waiting for another", 0.02):
            assert lock.is_locked
    assert capsys.readouterr().err == "waiting for another\n" and not lock.is_locked


def test_progress_is_named_every_few_seconds(capsys):
    assert list(say_progress("abc", "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    assert list(say_progress("abc", "reading", -1.0)) == ["a", "b", "c"]
    lines = [f"reading: {n} of 3 windows" for n in (1, 2, 3)]
    assert capsys.readouterr().err.splitlines() == lines
