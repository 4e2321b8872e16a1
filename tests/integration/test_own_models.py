"""Models of other packages, LSTM and MinGRU in whole runs: resuming, processes, every command."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import other_models
import pytest
import torch
from helpers import TEXT, TINY, load, numbers, same, state, wait_for

import charrnn
from charrnn import InputError, checkpoint

SETTINGS = (
    "data.path=text.txt", "data.seq_len=7", "trainer.max_epochs=3",
    "trainer.limit_train_batches=33", "callbacks.samples.length=10", "trainer.log_every_n_steps=7",
    "callbacks.checkpoint.every_n_steps=13",
)  # fmt: skip
ALLOW = "allow_targets=[mine]"
MODELS = {
    "nested": ("model._target_=mine.Counter", "model.form=nested", ALLOW),
    "lstm": ("model=lstm", "model.hidden_size=5"),
    "min_gru": ("model=min_gru", "model.hidden_size=5"),
}
models = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text and a package of models; nothing else is on the path."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "text.txt").write_text(TEXT[:3000], "utf-8")
    shutil.copy(other_models.__file__, folder / "mine.py")
    return folder


@pytest.fixture(scope="module")
def whole(folder, command):
    """Uninterrupted runs of 6 rows, in the middle of their second pass."""
    runs = {}

    def run(model):
        if model not in runs:
            runs[model] = folder / f"whole_{model}"
            where = f"hydra.run.dir={runs[model]}"
            arguments = (*SETTINGS, *MODELS[model], "data.batch_size=6", where)
            result = command("train.py", *arguments, cwd=folder)
            assert result.code == 0, result.err
        return runs[model]

    return run


@models
def test_killed_and_resumed(folder, command, whole, model):
    """Bit for bit, after SIGKILL at a random moment."""
    run, seconds = folder / f"killed_{model}", random.Random(model)
    arguments = (*SETTINGS, *MODELS[model], "data.batch_size=6", f"hydra.run.dir={run}")
    process = command.start("train.py", *arguments, cwd=folder)
    wait_for(run / "checkpoints" / "last.ckpt")
    time.sleep(seconds.uniform(0.05, 0.4))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process = command.start("train.py", f"resume={run}", ALLOW, cwd=folder)
    result = process.wait()
    assert result.code == 0, result.err
    assert same(state(run), state(whole(model))) and state(run)["windows"] == 99
    assert numbers(run) == numbers(whole(model))


@pytest.mark.parametrize("model", ["nested", "lstm"])
def test_two_processes_are_one(folder, command, whole, model):
    """With as many rows, but for rounding; and one of them goes on as one process."""
    run, other = folder / f"two_{model}", whole(model)
    two = ("data.batch_size=3", "trainer.devices=2", f"hydra.run.dir={run}")
    result = command("train.py", *SETTINGS, *MODELS[model], *two, cwd=folder)
    assert result.code == 0, result.err
    assert_close(run, other)
    one = (f"resume={run}/checkpoints/round_0002.ckpt", ALLOW, "data.batch_size=6")
    result = command("train.py", *one, "trainer.devices=1", cwd=folder)
    assert result.code == 0, result.err
    assert_close(run, other)


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


def test_every_command_takes_an_allowed_model_and_no_other(package, command, tmp_path):
    """And imports none that was not allowed."""
    folder, train = package
    allow = "allow_targets=[telling]"
    refused = command("train.py", *(a for a in train if a != allow), cwd=folder)
    assert refused.code == 2 and f"{allow} lets it in" in refused.err
    assert not (folder / "imported").exists() and not (folder / "told").exists()
    done = command("train.py", *train, cwd=folder)
    assert done.code == 0, done.err
    assert "test  " in done.out and done.out.count(allow) == 2  # to sample, and to go on
    (folder / "imported").unlink()
    with pytest.raises(InputError, match=r"allow_targets=\[telling\] allows it"):
        charrnn.load(folder / "told")
    for script, *arguments in (
        ("sample.py", "checkpoint=told", "length=5"),
        ("train.py", "mode=evaluate", "checkpoint=told", "evaluate.dynamic=sgd"),
        ("train.py", "resume=told", "trainer.max_epochs=2"),
    ):
        result = command(script, *arguments, cwd=folder)
        assert result.code == 2 and result.err.count("\n") == 1 and allow in result.err, result
        assert not (folder / "imported").exists(), script
        result = command(script, *arguments, allow, cwd=folder)
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
        arguments = (*SETTINGS, *MODELS["nested"], extra, "hydra.run.dir=none")
        result = invoke("train", *arguments, cwd=folder)
        assert result.code == 2 and words in result.err, result.err


def test_a_checkpoint_of_another_class(folder, whole, monkeypatch):
    """Keys that only the class or only the file has are named."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = whole("nested") / "checkpoints" / "last.ckpt"
    saved = checkpoint.read(file)
    saved["state_dict"]["model.weights"] = saved["state_dict"].pop("model.weight")
    with pytest.raises(InputError, match=r"the checkpoint lacks weight, .* Counter\.state_dict"):
        checkpoint.build_model(saved, ["mine"])
