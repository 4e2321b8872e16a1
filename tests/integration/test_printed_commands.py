"""Every command that a program prints is one that works, from where the user is."""

import json
import os
import re
import shlex
import signal

import pytest
from helpers import TEXT, TINY, assert_one_line, wait_for
from pages import Elements

SHORT = (
    *TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=3", "data.valid_size=50",
    "callbacks.samples=null", "logger=none", "trainer.num_sanity_val_steps=0",
)  # fmt: skip
COMMAND = re.compile(r"python \S*(train|sample)\.py (.*)")


def commands(text):
    """The commands in what was printed: the script's name, and its arguments."""
    found = [COMMAND.search(line) for line in text.splitlines()]
    return [(m[1], shlex.split(m[2])) for m in found if m]


@pytest.fixture(params=["run", "it's a, run", "null", "[1] #"])
def named(request, tmp_path):
    (tmp_path / "text file.txt").write_text(TEXT, "utf-8")
    return tmp_path, request.param


def test_of_a_run(invoke, named):
    folder, name = named
    result = invoke("train", "data.path=text file.txt", *SHORT, f"hydra.run.dir={name}", cwd=folder)
    assert result.code == 0, result
    printed = commands(result.out)
    assert [script for script, _ in printed] == ["sample", "train"]
    for script, arguments in printed:
        more = ["length=5"] if script == "sample" else []
        again = invoke(script, *arguments, *more, cwd=folder)
        assert again.code == 0, (arguments, again)
    assert "(window 6)" in again.out


def test_of_a_sweep_with_a_job_that_fails(invoke, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    arguments = ("-m", "data.path=text.txt", *SHORT, "optimizer=sgd", "optimizer.lr=0.1,1e30",
                 "trainer.gradient_clip_val=null")  # fmt: skip
    result = invoke("train", *arguments, cwd=tmp_path)
    assert result.code == 1
    single, again = commands(result.out)
    result = invoke(single[0], *single[1], "optimizer.lr=0.1", cwd=tmp_path)
    assert result.code == 0, result
    (sweep,) = tmp_path.glob("multirun/*/*")
    result = invoke(again[0], *again[1], cwd=tmp_path)
    assert result.code == 1 and "finished before" in result.out and "loss is" in result.err, result
    assert len(list(sweep.glob("[0-9]*/"))) == 2


def test_of_an_interrupted_run(command, text_file, tmp_path):
    run = tmp_path / "it's"
    process = command.start("train.py", f"data.path={text_file}", *SHORT, f"hydra.run.dir={run}",
                            "trainer.max_epochs=100000", cwd=tmp_path)  # fmt: skip
    wait_for(run / "checkpoints" / "last.ckpt")
    os.kill(process.pid, signal.SIGINT)
    result = process.wait()
    assert result.code == 130, result
    assert (run / "report.html").exists()  # also of what it had trained
    ((script, arguments),) = commands(result.out)
    again = command(f"{script}.py", *arguments, "trainer.max_steps=1", cwd=tmp_path)
    assert again.code == 0 and "nothing is left to do" in again.out, again


def test_of_a_run_that_failed(invoke, tmp_path):
    """Its page has the curves, the reason, and the command with which it goes on."""
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    wrong = ("optimizer=sgd", "optimizer.lr=1e30", "trainer.gradient_clip_val=null")
    arguments = ("data.path=text.txt", *SHORT, "hydra.run.dir=run", "trainer.log_every_n_steps=1")
    result = invoke("train", *arguments, *wrong, cwd=tmp_path)
    assert_one_line(result, ["loss is"])
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    data = json.loads(Elements(page).texts[1])
    assert data["state"] == "failed" and f"error: {data['reason']}\n" == result.err
    ((script, arguments),) = commands(dict(data["commands"])["go on"])
    # What becomes of it later is what counts.
    result = invoke(script, *arguments, "optimizer.lr=0.1", cwd=tmp_path)
    assert result.code == 0, result
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert json.loads(Elements(page).texts[1])["state"] == "finished"


def test_hints_are_commands(invoke, trained, tmp_path):
    """What a line about a wrong argument offers is right."""
    (tmp_path / "book.txt").write_text(TEXT, "utf-8")
    for script, wrong in (
        ("sample", str(trained)),
        ("sample", "--length=5"),
        ("train", "book.txt"),
    ):
        line = invoke(script, wrong, cwd=tmp_path).err
        (hint,) = re.findall(r"did you mean (.*)\?|, here (.*)$", line, re.M)
        offered = shlex.split(hint[0] or hint[1])
        more = {"sample": ["length=3"], "train": [*SHORT, "hydra.run.dir=run"]}[script]
        if script == "sample" and "checkpoint" not in offered[0]:
            more = [f"checkpoint={trained}"]
        result = invoke(script, *offered, *more, cwd=tmp_path)
        assert result.code == 0, (offered, result)
