"""Signals: recorded and acted on later; requeue requests of SLURM and of launchers."""

import os
import signal
import time

import pytest

from charrnn.training import signals


def test_launcher_requeues_after_saving(monkeypatch):
    """As submitit does: its handler of a signal requeues the job and exits."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    requeued = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: requeued.append(number))
    try:
        with signals.Listener() as listener:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert listener.number == signal.SIGUSR2 and not requeued
            with pytest.raises(SystemExit, match=str(128 + signal.SIGUSR2)):
                listener.exit()
            assert requeued == [signal.SIGUSR2]
        os.kill(os.getpid(), signal.SIGUSR2)
        assert len(requeued) == 2  # its handler is restored
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_forwarding_listener_records_the_first_signal():
    forwarded = []
    with signals.Listener(forwarded.append) as listener:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert forwarded == [signal.SIGTERM, signal.SIGINT] and listener.number == signal.SIGTERM
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            listener.exit()


def test_job_id_in_an_array_has_two_numbers(monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "4715")
    assert signals.slurm_job_id() == "4715"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert signals.slurm_job_id() == "4711_4"


def test_a_terminal_that_goes_away_ends_a_run_unless_that_is_ignored():
    """As nohup has it ignored."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with signals.Listener() as listener:
            os.kill(os.getpid(), signal.SIGHUP)
            assert listener.number is None
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with signals.Listener() as listener:
            os.kill(os.getpid(), signal.SIGHUP)
            assert listener.number == signal.SIGHUP
            with pytest.raises(SystemExit, match=str(128 + signal.SIGHUP)):
                listener.exit()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_signal_waits_for_is_named(monkeypatch, capsys):
    monkeypatch.setattr(signals, "PATIENCE", 0.02)
    with signals.Listener() as listener:
        listener.work = "the validation"
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
    line = "SIGTERM: the validation is finished first, and saved; a second signal ends at once\n"
    assert capsys.readouterr().err == line
    with signals.Listener() as listener:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
