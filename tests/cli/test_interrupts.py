"""Ctrl-C while a command computes: the process ends at once, and files are as they were."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from charrnn.checkpoint.files import atomic_write
from charrnn.cli import interrupts


@pytest.fixture
def ended(monkeypatch):
    """The exit codes of a process whose main thread hears no signal, as in a library's call."""
    codes = []
    monkeypatch.setattr(interrupts.os, "_exit", codes.append)
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    yield codes
    signal.signal(signal.SIGINT, before)


def wait_for_code(codes):
    end = time.monotonic() + 5
    while not codes and time.monotonic() < end:
        time.sleep(0.001)
    return codes


def test_it_ends_at_once_and_leaves_nothing(ended, tmp_path, capfd):
    file = tmp_path / "page.html"
    file.write_text("old")
    with interrupts.ended_by_interrupts(), atomic_write(file, "w") as scratch:
        scratch.write("half")
        os.kill(os.getpid(), signal.SIGINT)
        assert wait_for_code(ended) == [130]
        assert [f.name for f in tmp_path.iterdir()] == ["page.html"] and file.read_text() == "old"
        file.with_name(f".page.html.{os.getpid()}").touch()  # in truth the process has ended
    assert capfd.readouterr().err == "interrupted\n"


def test_a_command_that_has_ended_is_not_ended(ended):
    with interrupts.ended_by_interrupts():
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    assert ended == [] and signal.set_wakeup_fd(-1) == -1


LEAVES = """
import atexit, sys
from charrnn.cli.interrupts import leaves_at_once

class Slow:
    def __del__(self):
        print("freed")

kept = Slow()
kept.itself = kept
with leaves_at_once():
    atexit.register(print, "registered later")
    print("last line")
    raise SystemExit({code})
"""


@pytest.mark.parametrize(("code", "is_freed"), [(130, False), (143, False), (0, True), (2, True)])
def test_a_process_that_a_signal_ends_frees_nothing(code, is_freed):
    done = subprocess.run(
        [sys.executable, "-c", LEAVES.format(code=code)], capture_output=True, text=True
    )
    freed = "freed\n" if is_freed else ""
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == f"last line\nregistered later\n{freed}"


def test_in_another_thread_signals_are_left_alone():
    def work():
        with interrupts.ended_by_interrupts():
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert signal.set_wakeup_fd(-1) == -1
