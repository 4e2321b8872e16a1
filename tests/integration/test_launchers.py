"""Jobs of a sweep in parallel: joblib, and submitit's executor for one machine."""

import os
import signal
import time

import pytest
import yaml
from helpers import TEXT, TINY, load, same, wait_for

from charrnn.runs.sweep import read_jobs

SHORT = (
    *TINY, "trainer.max_epochs=2", "trainer.limit_train_batches=20", "callbacks.samples=null",
    "data.valid_size=100",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, command):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return tmp_path


@pytest.fixture
def start(command, folder):
    """Starts a sweep in a group of processes."""

    def start(*arguments):
        given = ("train.py", "-m", "data.path=text.txt", *SHORT, *arguments)
        return command.start(*given, cwd=folder, session=True)

    return start


AT_ONCE = (
    "launcher=joblib", "hydra.launcher.n_jobs=2", "optimizer.lr=1e-3,2e-3,-1",
    "trainer.max_epochs=40", "hydra.sweep.dir=sweep",
)  # fmt: skip
RUNS = ("0_lr=0.001", "1_lr=0.002")


@pytest.fixture
def start_both(start, folder):
    """Starts a sweep of which two jobs are under way."""

    def start_both():
        process = start(*AT_ONCE)
        for run in RUNS:
            wait_for(folder / "sweep" / run / "checkpoints" / "round_0001.ckpt")
        return process

    return start_both


def test_workers_of_joblib_save_and_end_where_the_sweep_is_killed(start_both):
    process = start_both()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 60
    while process.out.read_text("utf-8").count("SIGTERM: saved after window") < 2:
        assert time.monotonic() < end, process.out.read_text("utf-8")
        time.sleep(0.05)


def test_joblib_with_two_jobs_at_once(folder, start, start_both):
    """Ended by Ctrl-C, which saves both, and started again."""
    sweep, process = folder / "sweep", start_both()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    result = process.wait()
    assert (result.code, result.err) == (130, "")
    for name in RUNS:
        assert f"\n{name}: SIGINT: saved after window" in result.out
    result = start(*AT_ONCE).wait()
    assert result.code == 1
    assert result.err.splitlines() == ["error: 2_lr=-1: optimizer.lr=-1 must be above 0"]
    states = {job.number: job.state for job in read_jobs(sweep)}
    assert states == {0: "finished", 1: "finished", 2: "failed"}
    assert "1 of 3 jobs failed" in result.out and "untrained" not in result.out
    for run in RUNS:
        about = yaml.safe_load((sweep / run / ".hydra" / "about.yaml").read_text())
        assert about["threads"] == max(1, os.cpu_count() // 2)
        assert load(sweep / run / "checkpoints" / "last.ckpt")["charrnn"]["windows"] == 800


def test_a_job_that_is_told_to_make_room_goes_on_exactly(folder, command, start):
    """As SLURM does at the end of a job's time: SIGUSR1 through submitit."""
    longer = ("model.dropout=0.3", "trainer.max_epochs=30", "callbacks.checkpoint.every_n_steps=9")
    process = start("launcher=submitit_local", *longer, "hydra.sweep.dir=sweep")
    last = folder / "sweep" / "0" / "checkpoints" / "round_0001.ckpt"
    wait_for(last)
    (holder,) = holders(folder / "sweep" / "0" / ".hydra" / "lock")
    os.kill(holder, signal.SIGUSR1)
    result = process.wait()
    assert (result.code, result.err) == (0, "")
    (log,) = folder.glob("sweep/.submitit/*/*_0_log.out")
    assert "Requeued job" in log.read_text()
    assert log.read_text().count("untrained: validation") == 1
    rest = ("train.py", "data.path=text.txt", *SHORT, *longer, "hydra.run.dir=whole")
    assert command(*rest, cwd=folder).code == 0
    ends = [load(folder / f / "checkpoints" / "last.ckpt") for f in ("sweep/0", "whole")]
    assert last.exists() and same(ends[0]["state_dict"], ends[1]["state_dict"])
    assert same(ends[0]["charrnn"]["carry"], ends[1]["charrnn"]["carry"])


def holders(file):
    """The processes that have a file open."""
    found = set()
    for link in (p for pid in os.listdir("/proc") if pid.isdigit() for p in descriptors(pid)):
        try:
            if os.readlink(link) == str(file):
                found.add(int(link.split("/")[2]))
        except OSError:
            continue
    return found


def descriptors(pid):
    try:
        return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []
