"""Models of other packages, LSTM and MinGRU in whole runs: resuming, processes, every command."""

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import other_models
import pytest
import torch
from helpers import TEXT, TINY, load, numbers, same, state, wait_for
from pages import walkthrough_blocks

import charrnn
from charrnn import InputError, checkpoint

SETTINGS = (
    "data.path=text.txt", "data.seq_len=7", "trainer.max_epochs=3",
    "trainer.limit_train_batches=33", "callbacks.samples.length=10", "trainer.log_every_n_steps=7",
    "callbacks.checkpoint.every_n_steps=13",
)  # fmt: skip
TOGETHER = """
from charrnn.models import LSTM, Ensemble, MinGRU
from mine import Counter
from mypkg import MyCell

class Together(Ensemble):
    def __init__(self, vocab_size):
        counter = Counter(vocab_size, "nested")
        super().__init__([counter, *(kind(vocab_size, 5) for kind in (LSTM, MinGRU, MyCell))])
"""
"""A model whose state has those of the probe, LSTM, MinGRU and the walkthrough's cell."""
ALLOW = "allow_targets=[together]"
MODEL = ("model._target_=together.Together", ALLOW)
PROBE = ("model._target_=mine.Counter", "model.form=nested", "allow_targets=[mine]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text and packages of models; nothing else is on the path."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "text.txt").write_text(TEXT[:3000], "utf-8")
    shutil.copy(other_models.__file__, folder / "mine.py")
    (folder / "together.py").write_text(TOGETHER)
    cell = next(block for kind, block in walkthrough_blocks() if kind == "python")
    (folder / "mypkg.py").write_text(cell)
    return folder


@pytest.fixture(scope="module")
def whole(folder, command):
    """An uninterrupted run of 6 rows, in the middle of its second pass."""
    where = ("data.batch_size=6", "hydra.run.dir=whole")
    result = command("train.py", *SETTINGS, *MODEL, *where, cwd=folder)
    assert result.code == 0, result.err
    return folder / "whole"


def test_killed_and_resumed(folder, command, whole):
    """Bit for bit, after SIGKILL at some moment."""
    run = folder / "killed"
    arguments = (*SETTINGS, *MODEL, "data.batch_size=6", f"hydra.run.dir={run}")
    process = command.start("train.py", *arguments, cwd=folder)
    wait_for(run / "checkpoints" / "last.ckpt")
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = command("train.py", f"resume={run}", ALLOW, cwd=folder)
    assert result.code == 0, result.err
    assert same(state(run), state(whole)) and state(run)["windows"] == 99
    assert numbers(run) == numbers(whole)


def test_two_processes_are_one(folder, command, whole):
    """With as many rows, but for rounding; and one of them goes on as one process."""
    run = folder / "two"
    arguments = (*SETTINGS, *MODEL, "data.batch_size=3", f"hydra.run.dir={run}")
    ranks = [command.start("train.py", *arguments, cwd=folder, env=env) for env in two_of_srun()]
    for result in [rank.wait() for rank in ranks]:
        assert result.code == 0, result.err
    assert_close(run, whole)
    one = (f"resume={run}/checkpoints/round_0002.ckpt", ALLOW, "data.batch_size=6")
    result = command("train.py", *one, "trainer.devices=1", cwd=folder)
    assert result.code == 0, result.err
    assert_close(run, whole)


def two_of_srun():
    """The environments of two processes that srun starts, as of any two, which import nothing."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "test", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }  # fmt: skip
    return [shared | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]


def assert_close(run, other):
    a, b = (load(r / "checkpoints" / "last.ckpt") for r in (run, other))
    assert a["charrnn"]["windows"] == b["charrnn"]["windows"] == 99
    torch.testing.assert_close(a["state_dict"], b["state_dict"], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(a["charrnn"]["carry"], b["charrnn"]["carry"], rtol=1e-4, atol=2e-5)


@pytest.fixture(scope="module")
def package(folder):
    """The folder of a package that tells when it is imported."""
    source = Path(other_models.__file__).read_text("utf-8")
    touch = f"from pathlib import Path\nPath({str(folder / 'imported')!r}).touch()\n"
    (folder / "telling.py").write_text(source + touch)
    arguments = (
        "data.path=text.txt", "model._target_=telling.Counter", "model.form=dict",
        "allow_targets=[telling]", "data.test_size=300", "trainer.max_epochs=1",
        "trainer.limit_train_batches=3", *TINY[1:], "hydra.run.dir=told",
    )  # fmt: skip
    return folder, arguments


def test_every_command_takes_an_allowed_model_and_no_other(package, command, invoke):
    """And imports none that was not allowed."""
    folder, train = package
    allow = "allow_targets=[telling]"
    refused = invoke("train", *(a for a in train if a != allow), cwd=folder)
    assert refused.code == 2 and f"{allow} lets it in" in refused.err
    assert not (folder / "imported").exists() and not (folder / "told").exists()
    done = command("train.py", *train, cwd=folder)
    assert done.code == 0, done.err
    assert "test  " in done.out and done.out.count(allow) == 2  # to sample, and to go on
    (folder / "imported").unlink()
    with pytest.raises(InputError, match=r"allow_targets=\[telling\] allows it"):
        charrnn.load(folder / "told")
    for name, *arguments in (
        ("sample", "checkpoint=told", "length=5"),
        ("train", "mode=evaluate", "checkpoint=told", "evaluate.dynamic=sgd"),
        ("train", "resume=told", "trainer.max_epochs=2"),
    ):
        result = invoke(name, *arguments, cwd=folder)
        assert result.code == 2 and result.err.count("\n") == 1 and allow in result.err, result
        assert not (folder / "imported").exists(), name
        result = command(f"{name}.py", *arguments, allow, cwd=folder)
        assert result.code == 0, result.err
        (folder / "imported").unlink()


def test_tools_and_python(package, invoke, command, monkeypatch, tmp_path):
    folder, train = package
    if not (folder / "told").exists():
        assert command("train.py", *train, cwd=folder).code == 0
    allow = "allow_targets=[telling]"
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for to in ("torch", "safetensors"):
        out = tmp_path / f"model.{to}"
        refused = invoke("export", "told", f"--to={to}", cwd=folder)
        assert refused.code == 2 and allow in refused.err
        assert invoke("export", "told", f"--to={to}", f"--out={out}", allow, cwd=folder).code == 0
    result = invoke("export", "told", "--to=onnx", allow, cwd=folder)
    assert result.code == 2 and "Counter has no ONNX form" in result.err
    result = invoke("neurons", "told", "--text=text.txt", allow, cwd=folder)
    assert result.code == 2 and "Counter has no method activations(" in result.err
    result = invoke("train", *train, "neurons=tensorboard", "hydra.run.dir=other", cwd=folder)
    assert result.code == 2 and "Counter has no method activations(" in result.err
    assert not (folder / "other").exists()
    exported = tmp_path / "model.safetensors"
    ours = [charrnn.load(f, allow_targets=["telling"]) for f in ("told", exported)]
    together = charrnn.load(["told", exported], allow_targets=["telling"])
    texts = {model.generate("a", 20, seed=1, temperature=0) for model in (*ours, together)}
    assert len(texts) == 1
    assert torch.load(tmp_path / "model.torch", weights_only=True)["weight"].equal(
        ours[0].model.weight.detach()
    )


def test_bad_models_in_one_line(folder, invoke, monkeypatch):
    """A class that is no model, takes no vocabulary, or gets keys that it does not take."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "bad.py").write_text(
        "from torch import nn\n"
        "class NoVocabulary(nn.Module):\n    def __init__(self, size=3): super().__init__()\n"
        "class NoModule:\n    def __init__(self, vocab_size): pass\n"
        "class NoState(nn.Linear):\n"
        "    def __init__(self, vocab_size): super().__init__(vocab_size, 3)\n"
    )
    for target, words in {
        "bad.NoVocabulary": "takes no vocab_size",
        "bad.NoModule": "NoModule is no torch.nn.Module",
        "bad.NoState": "NoState has no method initial_state",
        "bad.Missing": "model._target_=bad.Missing",
        "nowhere.Model": "model._target_=nowhere.Model",
    }.items():
        allow = f"allow_targets=[{target.partition('.')[0]}]"
        arguments = (*SETTINGS, f"model._target_={target}", allow, "hydra.run.dir=none")
        result = invoke("train", *arguments, cwd=folder)
        assert result.code == 2 and result.err.count("\n") == 1, result.err
        assert words in result.err and not (folder / "none").exists()
    for extra, words in {
        "model.hiden=3": "model.hiden: nothing reads this key",
        "model.parameters=100": "model.parameters=100: Counter takes no hidden_size",
    }.items():
        arguments = (*SETTINGS, *PROBE, extra, "hydra.run.dir=none")
        result = invoke("train", *arguments, cwd=folder)
        assert result.code == 2 and words in result.err, result.err


def test_a_checkpoint_of_another_class(folder, whole, monkeypatch):
    """Keys that only the class or only the file has are named."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    saved = checkpoint.read(whole / "checkpoints" / "last.ckpt")
    saved["state_dict"]["model.w"] = saved["state_dict"].pop("model.members.0.weight")
    line = r"the checkpoint lacks members\.0\.weight, .* Together\.state_dict"
    with pytest.raises(InputError, match=line):
        checkpoint.build_model(saved, ["together"])
