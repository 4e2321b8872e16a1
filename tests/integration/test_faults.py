"""Faults that a run survives, made in real processes: kills, full disks, damage, two at once."""

import ctypes
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, TEXT, TINY, load, metrics, numbers, same, state, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import charrnn
from charrnn import InputError, checkpoint
from charrnn.callbacks import rewind
from charrnn.checkpoint.files import link
from charrnn.runs.lock import is_running

SETTINGS = (
    *TINY, "model.dropout=0.2", "trainer.max_epochs=4", "trainer.limit_train_batches=60",
    "trainer.val_check_interval=25", "callbacks.checkpoint.every_n_steps=5",
)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(TEXT[:6000], "utf-8")
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command, text):
    """The run without a fault."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = command("train.py", f"data.path={text}", f"hydra.run.dir={run}", *SETTINGS)
    assert result.code == 0, result.err
    return run


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it, to be damaged."""
    copy = shutil.copytree(whole, tmp_path / "run")
    for file in (copy / "checkpoints").iterdir():  # the last file of a round is the last one's too
        for other in (whole / "checkpoints").iterdir():
            if other.name < file.name and os.path.samefile(
                other, whole / "checkpoints" / file.name
            ):
                link(copy / "checkpoints" / other.name, file)
    return copy


def assert_one_line(result, *words):
    assert result.code == 2, result
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert all(word in result.err for word in words), result.err


def flip(file, seed=0):
    """Change one bit in the middle of the largest tensor's bytes."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2 + seed] ^= 16
    file.write_bytes(data)  # in place, so that its other names are changed too


# Killed


def test_killed_while_saving_after_every_window(command, whole, text, tmp_path):
    """With TMPDIR on another file system, where nothing of a checkpoint may go."""
    run, moments = tmp_path / "run", random.Random(3)
    elsewhere = tmp_path / "elsewhere"
    if os.path.isdir("/dev/shm") and os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev:
        elsewhere = type(tmp_path)(f"/dev/shm/charrnn-test-{os.getpid()}")
    elsewhere.mkdir()
    env = {"TMPDIR": str(elsewhere)}
    arguments = [a for a in SETTINGS if "every_n_steps=5" not in a]
    more = "callbacks.checkpoint.every_n_steps=1"
    try:
        process = command.start(
            "train.py", f"data.path={text}", f"hydra.run.dir={run}", *arguments, more, env=env
        )
        for _ in range(6):
            wait_for(run / "checkpoints" / "last.ckpt")
            time.sleep(moments.uniform(0.0, 0.5))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            for file in (run / "checkpoints").glob("*.ckpt"):
                checkpoint.read(file)  # each is whole, at every moment
            process = command.start("train.py", f"resume={run}", env=env)
        result = process.wait()
        assert result.code == 0, result.err
        assert list(elsewhere.iterdir()) == []
    finally:
        shutil.rmtree(elsewhere)
    assert same(state(run), state(whole)) and numbers(run) == numbers(whole)
    assert not [f for f in run.rglob(".*") if f.is_file()]


# A disk that is full


def limit_files(pid, size):
    """Let no file of a process grow beyond a size: as a full disk, but for what it is called."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("size", [9000, 1], ids=["for_checkpoints", "for_everything"])
def test_a_disk_that_is_full_for_a_while(command, whole, text, tmp_path, size):
    run = tmp_path / "run"
    process = command.start(
        "train.py", f"data.path={text}", f"hydra.run.dir={run}", *SETTINGS,
        "callbacks.samples=null", "callbacks.progress.seconds=1000.0",
        "trainer.log_every_n_steps=1",
    )  # fmt: skip
    wait_for(run / "checkpoints" / "round_0001.ckpt")
    limit_files(process.pid, size)
    kept = load(run / "checkpoints" / "last.ckpt")["charrnn"]["windows"]
    time.sleep(0.3)
    checkpoint.read(run / "checkpoints" / "last.ckpt")
    limit_files(process.pid, resource.RLIM_INFINITY)
    result = process.wait()
    assert result.code == 0 and "Traceback" not in result.err, result.err
    assert kept < 240
    if size > 1:  # else that line went into a full file too
        assert "cannot be saved (File too large); the last checkpoint is that of" in result.out
    ours, expected = state(run), state(whole)
    assert same(ours["weights"], expected["weights"])
    assert [int(row["step"]) for row in metrics(run)] == list(range(241))


def test_a_disk_that_stays_full(command, text, tmp_path):
    run = tmp_path / "run"
    arguments = (f"data.path={text}", *SETTINGS, "callbacks.samples=null")
    for on_error, rounds in (("retry", 4), ("stop", 200)):
        run = tmp_path / on_error
        process = command.start(
            "train.py", *arguments, f"hydra.run.dir={run}",
            f"callbacks.checkpoint.on_error={on_error}", f"trainer.max_epochs={rounds}",
        )  # fmt: skip
        wait_for(run / "checkpoints" / "previous.ckpt")
        limit_files(process.pid, 9000)
        result = process.wait()
        assert_one_line(result, "cannot be saved (File too large)", "resume=RUN")
        windows = load(run / "checkpoints" / "last.ckpt")["charrnn"]["windows"]
        assert f"the last checkpoint is that of window {windows};" in result.err
        assert ("training goes on" in result.out) == (on_error == "retry")
        assert sorted(f.suffix for f in (run / "checkpoints").glob(".*")) == []
    result = command("train.py", f"resume={tmp_path / 'retry'}")
    assert result.code == 0, result.err


# A checkpoint that is damaged


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_the_checkpoint_before_a_damaged_one_is_used(command, whole, run, damage):
    last = run / "checkpoints" / "last.ckpt"
    assert os.path.samefile(last, run / "checkpoints" / "round_0004.ckpt")
    if damage == "flipped":
        flip(last)
    elif damage == "gone":
        last.unlink()
    else:
        os.truncate(last, 1000 if damage == "cut" else 0)
    if damage != "gone":
        with pytest.raises(InputError, match=r"last\.ckpt: it is (damaged|torn)"):
            charrnn.load(run)
    result = command("train.py", f"resume={run}")
    assert result.code == 0, result.err
    assert "last.ckpt: " in result.err and result.err.count("\n") == 1
    # Where only the name is gone, the same file has another one.
    expected = "round_0004.ckpt, window 240" if damage == "gone" else "previous.ckpt, window 235"
    assert f"going on from {expected}" in result.err
    assert same(state(run), state(whole)) and numbers(run) == numbers(whole)
    for file in (run / "checkpoints").iterdir():
        checkpoint.read(file)


def test_a_run_without_a_whole_checkpoint(command, run):
    for number, file in enumerate((run / "checkpoints").iterdir()):
        os.truncate(file, 500 + number)
    before = sorted(run.rglob("*"))
    assert_one_line(command("train.py", f"resume={run}"), "last.ckpt", "start the run again")
    assert sorted(run.rglob("*")) == before


def test_going_back_leaves_a_last_checkpoint_at_every_moment(run, monkeypatch):
    """Stopped before any of its steps, it leaves a folder that goes on."""
    folder = run / "checkpoints"
    file = folder / "round_0002.ckpt"
    steps = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == stop:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(rewind, "link", counted(rewind.link))
    monkeypatch.setattr(type(run), "unlink", counted(type(run).unlink))
    stop = 1
    while True:
        steps = 0
        try:
            rewind.rewind_checkpoints(folder, file)
            break
        except KeyboardInterrupt:
            assert checkpoint.read(folder / "last.ckpt")["charrnn"]["windows"] in (120, 240)
        stop += 1
    assert stop > 3 and checkpoint.read(folder / "last.ckpt")["charrnn"]["windows"] == 120
    found = {f.name: checkpoint.read(f)["charrnn"]["windows"] for f in folder.iterdir()}
    assert max(found.values()) == 120 and {"best.ckpt", "round_0001.ckpt"} <= found.keys()


# Two at once


def test_two_processes_do_not_resume_one_run(command, text, tmp_path):
    run = tmp_path / "run"
    arguments = (f"data.path={text}", f"hydra.run.dir={run}", *SETTINGS)
    process = command.start("train.py", *arguments, "trainer.max_epochs=1000")
    wait_for(run / "checkpoints" / "last.ckpt")
    assert is_running(run)
    assert_one_line(command("train.py", f"resume={run}"), "run: another process trains there")
    assert_one_line(command("train.py", *arguments), "holds a run already")
    os.kill(process.pid, signal.SIGKILL)  # which lets the folder go
    process.wait()
    result = command("train.py", f"resume={run}", "trainer.max_epochs=1")
    assert result.code == 0, result.err


# The clock


def test_the_clock_set_back(command, whole, text, tmp_path):
    """As if a run had begun in the year 2100: TensorBoard reads its files by their names."""
    run = tmp_path / "run"
    arguments = (f"data.path={text}", f"hydra.run.dir={run}", *SETTINGS)
    assert command("train.py", *arguments, "trainer.max_epochs=2").code == 0
    for file in run.rglob("*"):
        os.utime(file, (4102444800, 4102444800))
    (events,) = (run / "tensorboard").glob("events.*")
    name = events.name.split(".")
    events.rename(events.with_name(".".join([*name[:3], "4102444800", *name[4:]])))
    result = command("train.py", f"resume={run}", "trainer.max_epochs=4")
    assert result.code == 0, result.err
    assert same(state(run), state(whole)) and numbers(run) == numbers(whole)
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    steps = [event.step for event in found.Scalars("train/loss")]
    assert steps == list(range(20, 241, 20))
    rewind.rewind_logs(run, 240, 21)
    assert len(list((run / "tensorboard").glob("events.*"))) == 2


# Folders that cannot be written


def test_a_folder_without_write_permission(text, tmp_path):
    """In a process without root's right to write everywhere."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o555)
    libc = ctypes.CDLL(None)

    def give_up_rights():
        libc.prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE

    def train(**settings):
        return subprocess.run(
            [sys.executable, str(ROOT / "train.py"), f"data.path={text}", *SETTINGS],
            cwd=folder, capture_output=True, text=True, preexec_fn=give_up_rights,
            env=os.environ | settings,
        )  # fmt: skip

    done = train()
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1 and "cannot be made (Permission denied)" in done.stderr
    assert list(folder.iterdir()) == []
