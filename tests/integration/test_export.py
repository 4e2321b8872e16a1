"""charrnn export on the command line, and runs that start from what it wrote."""

import subprocess
import sys

from helpers import TINY, load


def test_an_exported_model_samples_and_initializes_a_run(command, trained, tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "charrnn", "export", trained, "--to", "safetensors",
         "--out", tmp_path / "model.safetensors"], capture_output=True, text=True,
    )  # fmt: skip
    file = tmp_path / "model.safetensors"
    assert (process.returncode, process.stdout, process.stderr) == (0, f"{file}\n", "")
    ours, theirs = (
        command("sample.py", f"checkpoint={c}", "seed=1", "length=50") for c in (file, trained)
    )
    assert ours.code == 0 and ours.out == theirs.out
    text = trained.parent / "text.txt"
    settings = (f"data.path={text}", *TINY, "trainer.max_steps=1", f"hydra.run.dir={tmp_path}/run")
    result = command("train.py", f"init_from={file}", *settings)
    assert result.code == 0 and "init_from: weights of 8" in result.out, result
    start = load(tmp_path / "run" / "checkpoints" / "round_0000.ckpt")["state_dict"]
    expected = load(trained / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(value.equal(expected[name]) for name, value in start.items())
    result = command("train.py", f"resume={file}", cwd=tmp_path)
    assert result.code == 2 and "holds a model only; use init_from=" in result.err
