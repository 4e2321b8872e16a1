"""Every command that a program prints is one that works, from where the user is."""

import ast
import json
import os
import re
import shlex
import signal

import pytest
from conf_keys import options
from helpers import ROOT, TEXT, assert_one_line, wait_for
from pages import Elements
from printed import SHORT, commands

from charrnn.runs.run_report import COMMANDS as OF_A_PAGE

MORE = {"sample": ["length=5"]}
"""What a command gets besides, so that it is short."""


def run(invoke, folder, found):
    """Run commands; those that serve until Ctrl-C must name a folder."""
    outputs = []
    for name, arguments in found:
        if name == "tensorboard":
            assert (folder / arguments[0]).is_dir(), arguments
            continue
        arguments = ["text file.txt" if a == "FILE" else a for a in arguments]
        result = invoke(name, *arguments, *MORE.get(name, ()), cwd=folder)
        assert result.code == 0, (name, arguments, result)
        outputs.append(result.out)
    return outputs


@pytest.fixture(params=["it's a, run", "null", "[a] #", "\x1b'é\\"])
def named(request, tmp_path):
    (tmp_path / "text file.txt").write_text(TEXT, "utf-8")
    return tmp_path, request.param


def test_of_a_run(invoke, named):
    """At its end and on its page."""
    folder, name = named
    arguments = (*SHORT[:-2], "trainer.num_sanity_val_steps=0", f"hydra.run.dir={name}")
    result = invoke("train", "data.path=text file.txt", *arguments, cwd=folder)
    assert result.code == 0, result
    printed = commands(result.out)
    assert [command for command, _ in printed] == ["sample", "train", "tensorboard"]
    assert "(window 6)" in run(invoke, folder, printed)[1]
    data = json.loads(Elements((folder / name / "report.html").read_text("utf-8")).texts[1])
    printed = commands("\n".join(line for _, line in data["commands"]))
    assert [command for command, _ in printed] == ["sample", "train", "train", "export", "neurons"]
    run(invoke, folder, printed if name == "null" else printed[3:4])


def test_of_a_sweep_with_a_job_that_fails(invoke, tmp_path):
    (tmp_path / "a ${x}.txt").write_text(TEXT, "utf-8")
    arguments = ("-m", "data.path=a ${x}.txt", *SHORT, "optimizer=sgd", "optimizer.lr=0.1,1e30",
                 "trainer.gradient_clip_val=null", "hydra.sweep.dir=it's")  # fmt: skip
    result = invoke("train", *arguments, cwd=tmp_path)
    assert result.code == 1, result
    single, again = commands(result.out)
    result = invoke(single[0], *single[1], "optimizer.lr=0.1", cwd=tmp_path)
    assert result.code == 0, result
    result = invoke(again[0], *again[1], cwd=tmp_path)
    assert result.code == 1 and "finished before" in result.out and "loss is" in result.err, result
    assert len(list((tmp_path / "it's").glob("[0-9]*/"))) == 2
    result = invoke("sweep-report", "it's", cwd=tmp_path)
    ((name, arguments),) = commands(result.out)
    assert result.code == 0 and (name, arguments) == ("train", single[1])


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


# Where commands are made, and the test that runs them.

PRINTED = {
    "callbacks/checkpoint.py": test_of_an_interrupted_run,
    "cli/arguments.py": test_hints_are_commands,  # and Program, the names of the commands
    "cli/loggers.py": test_of_a_run,
    "cli/summary.py": test_of_a_run,
    "cli/sweep.py": test_of_a_sweep_with_a_job_that_fails,
    "runs/report.py": test_of_a_sweep_with_a_job_that_fails,
    "runs/run_report.py": test_of_a_run,
    "runs/sweep.py": test_of_a_sweep_with_a_job_that_fails,
}
QUOTES = {"shell_quote", "shell_command", "shell_path"}
"""The functions by which a command is made."""


def test_every_place_that_prints_a_command_has_a_test():
    """Commands are made by three functions, and no other way of quoting is used."""
    found = set()
    for file in sorted((ROOT / "charrnn").rglob("*.py")):
        name, text = file.relative_to(ROOT / "charrnn").as_posix(), file.read_text("utf-8")
        calls = [n.func for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
        if QUOTES & {getattr(call, "id", "") for call in calls}:
            found.add(name)
        if name not in ("errors.py", "runs/provenance.py") and not name.startswith("benchmarks/"):
            assert "shlex.quote" not in text and "shlex.join" not in text, name
    assert found - {"errors.py", "data/files.py"} == set(PRINTED)
    assert set(OF_A_PAGE) == {
        "sample from it", "how good is it", "go on", "a page to send", "what its units do",
    }  # fmt: skip


# What errors offer; for READMEs and help texts see test_offered_commands.py.


def test_settings_that_errors_offer_exist():
    """As in ``give trainer.max_epochs=-1``: there is such a key."""
    keys = {key for of_option in options().values() for key in of_option}
    keys |= {key.rpartition(".")[0] for key in keys} | {key.partition(".")[0] for key in keys}
    others = (
        "hydra.",
        "trainer.",
        "callbacks.",
        "model._target_",
        "mode",
        "allow_targets",
        "overrides",
        "KEY",
    )
    advice = re.compile(r"(?:give|by|leave out|use|try) ((?:[\w-]+\.)*[\w-]+)=")
    for file in sorted((ROOT / "charrnn").rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        for key in {k for t in texts if isinstance(t, str) for k in advice.findall(t)}:
            assert key in keys or key.startswith(others), (file.name, key)
