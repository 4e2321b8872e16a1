"""A run that is killed or stopped and goes on is the run that never was."""

import os
import random
import signal
import time

import pytest
from helpers import TEXT, load, metrics, numbers, same, state, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Odd sizes; validation in the middle of rounds; a round is longer than a pass of 58 windows.
SETTINGS = (
    "model.hidden_size=5", "model.num_layers=3", "model.dropout=0.3", "data.batch_size=3",
    "data.seq_len=31", "trainer.max_epochs=4", "trainer.limit_train_batches=67",
    "trainer.val_check_interval=30", "callbacks.checkpoint.every_n_steps=13",
    "callbacks.samples.every_n_steps=50", "callbacks.samples.length=10",
)  # fmt: skip
WINDOWS = 4 * 67


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(TEXT[:6000], "utf-8")
    return file


def assert_no_step_twice(run):
    steps = [int(row["step"]) for row in metrics(run)]
    assert steps == sorted(set(steps)) and steps
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    for tag in events.Tags()["tensors"]:
        steps = [event.step for event in events.Tensors(tag)]
        assert steps == sorted(set(steps)), tag


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command):
    """Uninterrupted runs, one for each scheduler."""
    runs = {}

    def run(scheduler, text_file):
        if scheduler not in runs:
            runs[scheduler] = tmp_path_factory.mktemp("whole") / "run"
            result = command("train.py", *arguments(runs[scheduler], scheduler, text_file))
            assert result.code == 0, result.err
        return runs[scheduler]

    return run


def arguments(run, scheduler, text_file):
    return (
        f"data.path={text_file}", f"hydra.run.dir={run}", f"scheduler={scheduler}", *SETTINGS
    )  # fmt: skip


@pytest.mark.parametrize("scheduler", ["adaptive", "cosine", "plateau", "constant"])
def test_killed_at_random_moments(command, whole, text_file, tmp_path, scheduler):
    run = tmp_path / "run"
    seconds = random.Random(scheduler)
    process = command.start("train.py", *arguments(run, scheduler, text_file))
    for _ in range(3):
        wait_for(run / "checkpoints" / "last.ckpt")
        time.sleep(seconds.uniform(0.05, 0.6))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process = command.start("train.py", f"resume={run}", cwd=tmp_path)
    result = process.wait()
    assert result.code == 0, result.err
    expected = whole(scheduler, text_file)
    assert state(run)["windows"] == WINDOWS
    assert same(state(run), state(expected))
    assert numbers(run) == numbers(expected)
    assert_no_step_twice(run)
    files = sorted(f.name for f in (run / "checkpoints").glob("*.ckpt"))
    assert files == sorted(f.name for f in (expected / "checkpoints").glob("*.ckpt"))
    best, reference = (load(r / "checkpoints" / "best.ckpt")["charrnn"] for r in (run, expected))
    assert best["windows"] == reference["windows"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(command, whole, text_file, tmp_path, number, code):
    run = tmp_path / "run"
    process = command.start("train.py", *arguments(run, "adaptive", text_file))
    wait_for(run / "checkpoints" / "last.ckpt")
    time.sleep(0.1)
    os.kill(process.pid, number)
    result = process.wait()
    assert result.code == code, result.err
    assert f"resume={run}" in result.out and "Traceback" not in result.err
    windows = load(run / "checkpoints" / "last.ckpt")["charrnn"]["windows"]
    assert 0 < windows < WINDOWS and f"after window {windows}" in result.out
    assert command("train.py", f"resume={run}").code == 0
    assert same(state(run), state(whole("adaptive", text_file)))


def test_from_an_earlier_checkpoint(command, whole, text_file, tmp_path):
    run = tmp_path / "run"
    assert command("train.py", *arguments(run, "adaptive", text_file)).code == 0
    result = command("train.py", f"resume={run}/checkpoints/round_0001.ckpt")
    assert result.code == 0, result.err
    assert same(state(run), state(whole("adaptive", text_file)))
    assert numbers(run) == numbers(whole("adaptive", text_file))
    assert_no_step_twice(run)


def test_more_rounds_than_were_asked_for(command, whole, text_file, tmp_path):
    run = tmp_path / "run"
    short = [a for a in arguments(run, "adaptive", text_file) if "max_epochs" not in a]
    assert command("train.py", *short, "trainer.max_epochs=2").code == 0
    assert command("train.py", f"resume={run}").code == 0  # nothing left to do
    assert state(run)["rounds"] == 2
    assert command("train.py", f"resume={run}", "trainer.max_epochs=4").code == 0
    assert same(state(run), state(whole("adaptive", text_file)))


def test_killed_before_the_first_checkpoint(command, whole, text_file, tmp_path):
    run = tmp_path / "run"
    process = command.start(
        "train.py", *arguments(run, "adaptive", text_file.name), cwd=text_file.parent
    )
    wait_for(run / ".hydra" / "overrides.yaml")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "checkpoints" / "last.ckpt").exists()
    result = command("train.py", f"resume={run}")  # from another folder
    assert result.code == 0, result.err
    assert same(state(run), state(whole("adaptive", text_file)))
    assert_no_step_twice(run)
