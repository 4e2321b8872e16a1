"""Several processes on one corpus: the run of one process with as many rows, and its ends."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import ranks_that_fail
import torch
from helpers import ROOT, TEXT, load, metrics, same

from charrnn.runs.lock import is_running
from charrnn.training import distributed

# 3 rows of each of 2 processes; a pass has ceil(386 / 6) = 65 windows. A run ends just after its
# third has begun, while the carry still shows where it came from.
WINDOWS = 4 * 33
SETTINGS = (
    "data.seq_len=7", "model.hidden_size=5", "task.l2=0.3", "optimizer=sgd", "optimizer.lr=0.03",
    "trainer.max_epochs=4", "trainer.limit_train_batches=33", "callbacks.samples.length=10",
    "trainer.log_every_n_steps=7", "callbacks.checkpoint.every_n_steps=13",
)  # fmt: skip
JOBS = [
    f"{i}_reduction={reduction},window={window}"
    for i, (reduction, window) in enumerate(itertools.product(("mean", "sum"), (-1, 50)))
]
ONE, TWO = ("data.batch_size=6",), ("data.batch_size=3", "trainer.devices=2")
FAILING = '''
import multiprocessing, os, resource, signal, time
from pytorch_lightning import Callback

class Failing(Callback):
    """Does something to a process when a window starts."""

    def __init__(self, how: str, rank: int = 1, window: int = 50):
        self.how, self.rank, self.window = how, rank, window

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_rank == self.rank and trainer.global_step == self.window:
            if self.how == "raise":
                raise ValueError("on purpose")
            elif self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "parent":
                os.kill(multiprocessing.parent_process().pid, signal.SIGTERM)
            elif self.how == "orphan":
                os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
                time.sleep(3)
            elif self.how == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
            elif self.how == "requeue":
                os.kill(os.getpid(), signal.SIGUSR1)
        elif self.how == "full" and trainer.global_step == self.window + 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
'''


def failing(how, **more):
    settings = {"_target_": "failing.Failing", "how": how, **more}
    return tuple(f"+callbacks.failing.{key}={value}" for key, value in settings.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    (folder / "text.txt").write_text(TEXT[:3000], "utf-8")
    (folder / "failing.py").write_text(FAILING, "utf-8")
    return folder


@pytest.fixture(scope="module")
def train(folder, command):
    def train(*arguments, env=None):
        if not any(a.startswith("resume=") for a in arguments):
            arguments = ("data.path=text.txt", *SETTINGS, *arguments)
        env = {"PYTHONPATH": str(folder), **(env or {})}
        return command.start("train.py", "allow_targets=[failing]", *arguments, cwd=folder, env=env)

    yield train
    assert not left_behind(folder)


def left_behind(folder):
    """Processes that still run in a folder, when those that end have had time to."""
    for _ in range(100):
        if not (found := [p for p in all_processes() if runs_in(p, folder)]):
            return []
        time.sleep(0.1)
    return found


def all_processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def runs_in(process, folder):
    try:
        return os.readlink(f"/proc/{process}/cwd") == str(folder)
    except OSError:
        return False


@pytest.fixture(scope="module")
def single(folder, train):
    """Runs of one process with all rows."""
    runs = {"mean": folder / "mean", "sum": folder / "sum"}
    for reduction, run in runs.items():
        result = train(*ONE, f"task.reduction={reduction}", f"hydra.run.dir={run}").wait()
        assert result.code == 0, result.err
    return runs


@pytest.fixture(scope="module")
def sweep(folder, train):
    """A multirun of runs of two processes, of which every second fails in the second one."""
    result = train(
        *TWO, "trainer.strategy=ddp", f"hydra.sweep.dir={folder / 'sweep'}", "seed=1",
        "task.reduction=mean,sum", *failing("raise", window="-1,50"), "-m",
    ).wait()  # fmt: skip
    return folder / "sweep", result


@pytest.fixture(scope="module")
def double(sweep):
    folder, _ = sweep
    return {"mean": folder / JOBS[0], "sum": folder / JOBS[2]}


def last(run):
    return load(run / "checkpoints" / "last.ckpt")


def assert_the_same_but_for_rounding(run, other):
    (a, b), files = (last(run), last(other)), (metrics(run), metrics(other))
    assert a["charrnn"]["windows"] == b["charrnn"]["windows"] == WINDOWS
    assert a["charrnn"]["position"] == b["charrnn"]["position"] == {"window": 2, "passes": 2}
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(a[part], b[part], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(a["charrnn"]["carry"], b["charrnn"]["carry"], rtol=1e-5, atol=2e-6)
    assert [len(rows) for rows in files] == [len(files[0])] * 2
    for row, other in zip(*files):
        for key in row.keys() - {"train/chars_per_second"}:
            assert (row[key] == other[key] == "") or float(row[key]) == pytest.approx(
                float(other[key]), rel=1e-4, abs=1e-5
            ), key


def assert_the_same(run, other):
    a, b = last(run), last(other)
    for part in ("state_dict", "optimizer_states", "callbacks"):
        assert same(a[part], b[part]), part
    for part in ("carry", "position", "random", "random_of_others", "windows", "validations"):
        assert same(a["charrnn"][part], b["charrnn"][part]), part


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_processes_are_one_with_as_many_rows(single, double, reduction):
    assert_the_same_but_for_rounding(double[reduction], single[reduction])


def test_a_checkpoint_holds_what_is_of_each_process(double):
    ours = last(double["mean"])["charrnn"]
    assert ours["carry"].shape == (2, 6, 5)
    (other,) = ours["random_of_others"]
    assert not other["cpu"].equal(ours["random"]["cpu"])


def test_a_sweep_goes_on_after_a_failure_in_one_process(sweep):
    folder, result = sweep
    assert result.code == 1
    for job in (JOBS[1], JOBS[3]):
        line = f"error: {job}: RuntimeError: process 1 failed: ValueError: on purpose"
        assert result.err.count(line) == 1
    assert "Traceback" not in result.err
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == JOBS
    for job, windows in zip(JOBS, (WINDOWS, 33, WINDOWS, 33)):
        run = folder / job
        rounds = load(sorted((run / "checkpoints").glob("round_*"))[-1])["charrnn"]
        assert rounds["windows"] == windows
        names = {".hydra", "checkpoints", "metrics.csv", "report.html", "samples.jsonl"}
        names |= {"tensorboard"} | ({"error.txt"} if windows == 33 else set())
        assert {p.name for p in run.iterdir()} == names
        assert len(list((run / "tensorboard").glob("events*"))) == 1


def test_a_process_that_is_killed_ends_a_run(folder, train):
    start = time.monotonic()
    run = folder / "killed"
    result = train(*TWO, f"hydra.run.dir={run}", *failing("kill")).wait()
    assert result.code == 1 and time.monotonic() - start < 60
    assert "process 1 terminated with signal SIGKILL" in result.err
    assert result.err.count("Traceback") == 1  # not also of those that missed it
    assert load(run / "checkpoints" / "last.ckpt")["charrnn"]["windows"] == 39


def test_a_killed_process_is_named_where_another_ended_too(monkeypatch):
    """Both before anybody looked, as on a busy machine."""
    wait = distributed.connection.wait

    def late(sentinels, *args, **kwargs):
        for sentinel in list(sentinels):
            if isinstance(sentinel, int):  # of a process; a queue asks for its pipe
                wait([sentinel])
        return wait(sentinels, *args, **kwargs)

    monkeypatch.setattr(distributed.connection, "wait", late)
    with pytest.raises(RuntimeError, match=r"^process 1 terminated with signal SIGKILL$"):
        distributed.launch(ranks_that_fail.one_killed, 2, [])


def test_who_saves_for_a_killed_process_holds_the_folder(folder, train):
    """Nobody takes the run up before the last checkpoint is there."""
    run = folder / "orphan"
    result = train(*TWO, f"hydra.run.dir={run}", *failing("orphan", rank=0)).wait()
    assert result.code == -signal.SIGKILL, result.err
    assert is_running(run) and last(run)["charrnn"]["windows"] == 39
    assert not left_behind(folder)
    assert not is_running(run) and last(run)["charrnn"]["windows"] > 50


@pytest.mark.parametrize("on_error", ["retry", "stop"])
def test_a_full_disk_below_two_processes(folder, train, on_error):
    """Only rank zero writes, and the second neither waits for it nor goes on without it."""
    run = folder / f"full_{on_error}"
    result = train(
        *TWO, f"hydra.run.dir={run}", f"callbacks.checkpoint.on_error={on_error}",
        *failing("full", rank=0, window=50),
    ).wait()  # fmt: skip
    said = "window 52 cannot be saved (File too large); the last checkpoint is that of window 39"
    if on_error == "retry":
        assert result.code == 0, result.err
        assert f"{said}; training goes on" in result.out
        assert last(run)["charrnn"]["windows"] == WINDOWS
        steps = {int(row["step"]) for row in metrics(run)}
        assert steps == {0, *range(33, WINDOWS + 1, 33), *range(7, WINDOWS + 1, 7)}
    else:
        assert result.code == 2 and result.err.count("error: ") == 1, result.err
        assert f"{said}; make room" in result.err
        assert last(run)["charrnn"]["windows"] == 39


def test_from_two_processes_into_one(folder, train, single, double):
    run = folder / "into_one"
    shutil.copytree(double["mean"], run)
    arguments = f"resume={run}/checkpoints/round_0002.ckpt", *ONE, "trainer.devices=1"
    # Or Lightning finds a port, which another program may have by the time it is opened.
    port = {"MASTER_PORT": str(10_000 + os.getpid() % 20_000)}
    result = train(*arguments, env=port).wait()
    assert result.code == 0 and "rewinding to window 66" in result.out, result.err
    assert_the_same_but_for_rounding(run, single["mean"])


def test_from_one_process_into_two_and_stopped(folder, train, single):
    """The signal goes to the process that waits for the others."""
    run = folder / "into_two"
    shutil.copytree(single["mean"], run)
    arguments = (f"resume={run}/checkpoints/round_0002.ckpt", *TWO)
    result = train(*arguments, *failing("parent", window=100)).wait()
    windows = last(run)["charrnn"]["windows"]
    assert result.code == 143 and 100 < windows < WINDOWS and result.err == ""
    assert result.out.count(f"SIGTERM: saved after window {windows}; resume with") == 1
    result = train(f"resume={run}", *ONE, "trainer.devices=1", "callbacks.failing=null").wait()
    assert result.code == 0, result.err
    assert_the_same_but_for_rounding(run, single["mean"])


def test_torchrun(folder, train, double):
    """Exactly one folder, though no process is told its name."""
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
         "--standalone", ROOT / "train.py", f"data.path={folder / 'text.txt'}", *SETTINGS,
         "data.batch_size=3"],
        capture_output=True, text=True, cwd=make(folder / "torchrun"),
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("best validation") == 1
    (run,) = (folder / "torchrun").glob("outputs/*/*")
    assert_the_same(run, double["mean"])


def make(folder):
    folder.mkdir()
    return folder


def slurm(folder, rank=0, count=1, **more):
    """What srun tells a process, and a scontrol that writes down what it is told."""
    tools = folder / "tools"
    if not tools.exists():
        tools.mkdir()
        (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol.log\n')
        (tools / "scontrol").chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "test",
        "SLURM_NTASKS": str(count), "SLURM_NTASKS_PER_NODE": str(count), "SLURM_NNODES": "1",
        "SLURM_NODEID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
        "MASTER_ADDR": "127.0.0.1", **more,
    }  # fmt: skip


def test_a_job_of_slurm_is_queued_again(folder, train, single):
    """SIGUSR1 saves, and the same command goes on when the job is started again."""
    run = folder / "requeued"
    arguments = (*ONE, f"hydra.run.dir={run}", *failing("requeue", rank=0))
    result = train(*arguments, env=slurm(folder)).wait()
    assert result.code == 128 + signal.SIGUSR1, result.err
    assert (folder / "scontrol.log").read_text() == "requeue 4711\n"
    assert last(run)["charrnn"]["windows"] > 50
    result = train(*arguments, env=slurm(folder, SLURM_RESTART_COUNT="1")).wait()
    assert result.code == 0, result.err
    assert_the_same(run, single["mean"])


def test_processes_of_srun_are_queued_again(folder, train, double):
    """Two of them, of which only the second gets the signal; then two that resume."""
    run = folder / "srun"
    (folder / "scontrol.log").unlink(missing_ok=True)
    for restarts, code in (("0", 128 + signal.SIGUSR1), ("1", 0)):
        more = {"MASTER_PORT": free_port(), "SLURM_RESTART_COUNT": restarts}
        started = [
            train("data.batch_size=3", f"hydra.run.dir={run}", *failing("requeue"),
                  env=slurm(folder, rank, 2, **more))
            for rank in range(2)
        ]  # fmt: skip
        results = [process.wait() for process in started]
        assert [r.code for r in results] == [code] * 2, results[0].err + results[1].err
        assert (folder / "scontrol.log").read_text() == "requeue 4711\n"
        assert results[1].out == "" and results[0].out.count("run:") == 1
    assert_the_same(run, double["mean"])


@pytest.mark.parametrize("sweep", ["hydra.mode=MULTIRUN", "-m"])
def test_a_sweep_is_not_for_processes_of_srun(folder, train, sweep):
    more = {"MASTER_PORT": free_port()}
    arguments = (sweep, "seed=1", f"hydra.sweep.dir={folder / 'none'}")
    started = [train(*arguments, env=slurm(folder, rank, 2, **more)) for rank in range(2)]
    results = [process.wait() for process in started]
    assert [(r.code, r.out) for r in results] == [(2, "")] * 2 and not (folder / "none").exists()
    assert results[0].err.count("\n") == 1 and "make one run; a sweep starts" in results[0].err
    assert results[1].err == ""


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trainer.strategy=fsdp",), "trainer.strategy=fsdp must be auto, ddp, or"),
        (("trainer.num_nodes=2",), "trainer.num_nodes=2 must be 1, unless torchrun or srun"),
        (("trainer.accumulate_grad_batches=2",), "trainer.accumulate_grad_batches=2 must be 1"),
        (("optimizer.lr=-1", *TWO), "optimizer.lr=-1 must be above 0"),
        (("task.on_divergence=rollback", *TWO), "must be stop with several processes"),
        (("trainer.val_check_interval=66", *TWO), "at most the 33 windows of a round"),
    ],
    ids=str,
)
def test_what_cannot_be(folder, train, arguments, words):
    result = train(*arguments, f"hydra.run.dir={folder / 'none'}").wait()
    assert (result.code, result.out) == (2, "") and not (folder / "none").exists()
    assert result.err.startswith("error: ") and result.err.count("\n") == 1 and words in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (TWO[:1], "data.batch_size=3: the run that is resumed has 6 rows, which with one process"),
        ((*TWO, "data.batch_size=6"), "with 2 processes is data.batch_size=3"),
        ((*TWO, "trainer.devices=4"), "with 4 processes cannot be kept"),
    ],
    ids=str,
)
def test_rows_stay(train, single, arguments, words):
    result = train(f"resume={single['mean']}", *arguments).wait()
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1
