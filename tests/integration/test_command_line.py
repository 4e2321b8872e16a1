"""Command lines as processes: what help imports, folders of runs that start at once, bad losses."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, TINY, assert_one_line, listing, load

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", *TINY)


def test_a_loss_that_is_not_finite(command, text_file, tmp_path):
    run = tmp_path / "run"
    result = command(
        "train.py", f"data.path={text_file}", f"hydra.run.dir={run}", *SHORT,
        "optimizer=sgd", "optimizer.lr=1e30", "trainer.gradient_clip_val=null",
    )  # fmt: skip
    assert_one_line(result, ["loss is", "at window", "optimizer.lr"])
    kept = load(run / "checkpoints" / "last.ckpt")
    assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["seed=3", "--cfg", "job"]])
@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_help_and_settings(script, arguments, tmp_path):
    """In a process of its own, where what it imports can be told."""
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(*sorted({'torch', 'pytorch_lightning'} & set(sys.modules)),"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / script), *arguments],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "\n")  # neither of the two slow imports
    if arguments == ["--help"]:
        lines = done.stdout.splitlines()
        assert len(lines) <= 40 and max(map(len, lines)) <= 100
    else:
        assert ("seed: 3" in done.stdout) == (arguments[0] == "seed=3")
    assert listing(tmp_path) == []


def test_two_runs_at_once_have_folders_of_their_own(command, text_file, tmp_path):
    arguments = ("train.py", f"data.path={text_file}", *SHORT)
    started = [command.start(*arguments, f"seed={i}", cwd=tmp_path) for i in (1, 2, 3)]
    results = [process.wait() for process in started]
    assert [r.code for r in results] == [0, 0, 0], results
    runs = sorted(tmp_path.glob("outputs/*/*"))
    seeds = {load(run / "checkpoints" / "last.ckpt")["charrnn"]["settings"]["seed"] for run in runs}
    assert len(runs) == 3 and seeds == {1, 2, 3}
    for run in runs:
        assert json.dumps(sorted(p.name for p in run.iterdir())) == json.dumps(
            [".hydra", "checkpoints", "metrics.csv", "report.html", "samples.jsonl", "tensorboard"]
        )


@pytest.mark.parametrize("closed", ["| head -1", ">&-", "2>&-"])
def test_training_outlives_its_output(tmp_path, text_file, closed):
    """A reader that is gone, or a stream closed from the beginning, ends no run."""
    arguments = f"data.path={text_file} hydra.run.dir=run {' '.join(SHORT)} model.backend=torch"
    line = f"{sys.executable} {ROOT / 'train.py'} {arguments} {closed}"
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True)
    saved = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert saved["charrnn"]["windows"] == 3


def test_output_that_cannot_be_encoded_is_escaped(tmp_path):
    (tmp_path / "text.txt").write_text("äöü☃" * 200, "utf-8")
    arguments = ("data.path=text.txt", "hydra.run.dir=run", *SHORT, "model.backend=torch")
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *arguments], cwd=tmp_path, capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"\\u2603" in done.stdout and "ä".encode("latin-1") in done.stdout
