"""The walkthrough of charrnn/models/README.md: its files are written and its commands are run."""

import re
import runpy
import shlex
import sys

import pytest
from helpers import TEXT
from pages import walkthrough_blocks

from charrnn.runs.sweep import read_jobs

SHORT = (
    "trainer.max_epochs=1", "trainer.limit_train_batches=3", "callbacks.samples.length=5",
    "data.seq_len=7", "data.batch_size=3",
)  # fmt: skip
BLOCKS = walkthrough_blocks()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of the page, outside of the checkout."""
    folder = tmp_path_factory.mktemp("walkthrough")
    (folder / "book.txt").write_text(TEXT[:3000], "utf-8")
    for kind, block in BLOCKS:
        if kind != "sh":
            file = folder / re.search(r"^# (\S+\.(?:py|yaml))$", block, re.MULTILINE)[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block, "utf-8")
    return folder


def test_own_cell_is_short(folder):
    source = (folder / "mypkg" / "__init__.py").read_text("utf-8")
    assert len(source.partition("class ")[2].splitlines()) <= 25


def test_every_command_in_order(folder, command, invoke, monkeypatch, capfd):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mypkg", "mypkg.training"):  # imported here, and forgotten at the end
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    assert len(lines) == 9
    outputs = []
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert program == "charrnn"
        if name == "train":  # as it stands, but for fewer windows
            short = SHORT if "resume=first" not in arguments else ("trainer.max_epochs=2",)
            short = [s for s in short if s.partition("=")[0] != arguments[1].partition("=")[0]]
            result = command("train.py", *arguments, *short, cwd=folder)
        else:
            result = invoke(name, *arguments, cwd=folder)
        assert (result.code, result.err) == (0, ""), (line, result)
        outputs.append(result.out)
    jobs = read_jobs(folder / "cells")
    kinds = {job.overrides["model"] for job in jobs}
    assert kinds == {"my_cell", "gru_encode", "gru_resize", "lstm", "min_gru"}
    assert all(45_000 < job.parameters <= 50_000 for job in jobs)
    assert all(kind in outputs[7] for kind in kinds)
    assert len(outputs[1]) > 100 and len(outputs[8]) == 100

    monkeypatch.chdir(folder)
    runpy.run_path("read.py")
    assert capfd.readouterr().out.startswith("The ")
