"""Jobs of a sweep in parallel: joblib, and submitit's executor for one machine."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from helpers import ROOT, TEXT, TINY, load, same

from charrnn.runs.sweep import read_jobs

SHORT = (
    *TINY, "trainer.max_epochs=2", "trainer.limit_train_batches=20", "callbacks.samples=null",
    "data.valid_size=100",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, command):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return tmp_path


def start(folder, *arguments):
    """In a process of its own, with the default number of threads."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", "data.path=text.txt", *SHORT, *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


AT_ONCE = (
    "launcher=joblib", "hydra.launcher.n_jobs=2", "optimizer.lr=1e-3,2e-3,-1",
    "trainer.max_epochs=40", "hydra.sweep.dir=sweep",
)  # fmt: skip
RUNS = ("0_lr=0.001", "1_lr=0.002")


def start_both(folder):
    """A sweep of which two jobs are under way."""
    process = start(folder, *AT_ONCE)
    rounds = [folder / "sweep" / run / "checkpoints" / "round_0001.ckpt" for run in RUNS]
    while not all(file.exists() for file in rounds):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def test_workers_of_joblib_save_and_end_where_the_sweep_is_killed(folder):
    process = start_both(folder)
    process.kill()
    out, _ = process.communicate(timeout=30)  # until the last worker has closed it
    assert out.count("SIGTERM: saved after window") == 2


def test_joblib_with_two_jobs_at_once(folder):
    """Ended by Ctrl-C, which saves both, and started again."""
    sweep, process = folder / "sweep", start_both(folder)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, ""), err
    for name in RUNS:
        assert f"\n{name}: SIGINT: saved after window" in out
    process = start(folder, *AT_ONCE)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert err.splitlines() == ["error: 2_lr=-1: optimizer.lr=-1 must be above 0"]
    states = {job.number: job.state for job in read_jobs(sweep)}
    assert states == {0: "finished", 1: "finished", 2: "failed"}
    assert "1 of 3 jobs failed" in out and "untrained" not in out
    for run in RUNS:
        about = yaml.safe_load((sweep / run / ".hydra" / "about.yaml").read_text())
        assert about["threads"] == max(1, os.cpu_count() // 2)
        assert load(sweep / run / "checkpoints" / "last.ckpt")["charrnn"]["windows"] == 800


def test_a_job_that_is_told_to_make_room_goes_on_exactly(folder, command):
    """As SLURM does at the end of a job's time: SIGUSR1 through submitit."""
    longer = ("model.dropout=0.3", "trainer.max_epochs=30", "callbacks.checkpoint.every_n_steps=9")
    process = start(folder, "launcher=submitit_local", *longer, "hydra.sweep.dir=sweep")
    while not (last := folder / "sweep" / "0" / "checkpoints" / "round_0001.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    (holder,) = holders(folder / "sweep" / "0" / ".hydra" / "lock")
    os.kill(holder, signal.SIGUSR1)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
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
