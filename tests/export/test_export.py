"""Export: other programs compute the same, and what was exported comes back."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import TINY, load
from small_models import saved_model as make

import charrnn
from charrnn import GRUEncode, GRUResize, InputError
from charrnn.checkpoint.serialization import save
from charrnn.export.formats import export, main

ALPHABET = "\0\x1b ab\u00e9\u4e16\U0001f600"
VARIANTS = [
    (kind, reset, gate)
    for kind in (GRUEncode, GRUResize)
    for reset in ("after", "before")
    for gate in ("sigmoid", "hard_sigmoid")
]
variants = pytest.mark.parametrize(
    ("kind", "reset", "gate"), VARIANTS, ids=lambda v: getattr(v, "__name__", v)
)


def saved(folder, kind, reset, gate, **settings):
    model, charset, whole = make(kind, ALPHABET, reset=reset, gate=gate, **settings)
    save(whole, folder / "model.ckpt")
    return model, charset, folder / "model.ckpt"


@variants
def test_onnx_takes_the_same_steps(tmp_path, kind, reset, gate):
    import onnxruntime

    model, charset, file = saved(tmp_path, kind, reset, gate)
    out = export(file, "onnx")
    assert out == tmp_path / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(out, options, providers=["CPUExecutionProvider"])
    names = [
        [(v.name, v.shape) for v in side()] for side in (session.get_inputs, session.get_outputs)
    ]
    size = len(charset)
    assert names == [
        [("index", ["B"]), ("state", [3, "B", 5])],
        [("logits", ["B", size]), ("next_state", [3, "B", 5])],
    ]
    inputs = torch.randint(0, size, (7, 3))
    state = torch.randn(3, 3, 5)
    expected, final = model(inputs, state)
    state = state.numpy()
    for index, wanted in zip(inputs.numpy(), expected):
        logits, state = session.run(None, {"index": index, "state": state})
        np.testing.assert_allclose(logits, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state, final.detach().numpy(), rtol=1e-4, atol=1e-5)
    (metadata,) = [session.get_modelmeta().custom_metadata_map]
    assert json.loads(metadata["charrnn"])["charset"] == charset.state_dict()


@variants
def test_safetensors_come_back(tmp_path, kind, reset, gate):
    model, charset, file = saved(tmp_path, kind, reset, gate, dropout=0.5)
    found = charrnn.load(export(file, "safetensors"))
    assert type(found.model) is kind and found.charset == charset
    assert (found.model.gru.reset, found.model.gru.gate) == (reset, gate)
    for name, value in model.state_dict().items():
        assert found.model.state_dict()[name].equal(value), name
    settings = {"length": 30, "seed": 1}
    assert found.generate("ab", **settings) == charrnn.load(file).generate("ab", **settings)


def test_safetensors_are_of_others_too(tmp_path):
    """What stands in the file is what any reader of safetensors finds."""
    from safetensors import safe_open

    model, charset, file = saved(tmp_path, GRUEncode, "after", "sigmoid")
    with safe_open(export(file, "safetensors", tmp_path / "named.safetensors"), "np") as f:
        assert set(f.keys()) == set(model.state_dict())
        described = json.loads(f.metadata()["charrnn"])
    assert described["charset"] == charset.state_dict()
    assert described["settings"]["model"]["hidden_size"] == 5
    assert described.keys() == {"format", "version", "settings", "charset", "sha256"}


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
def test_torch_s_own_modules_take_the_weights(tmp_path, kind):
    model, _, file = saved(tmp_path, kind, "after", "sigmoid")
    plain = torch.load(export(file, "torch"), weights_only=True)
    size = len(plain["charset"]["characters"]) + 1
    gru = torch.nn.GRU(5 if kind is GRUEncode else size, 5, 3)
    gru.load_state_dict(plain["gru"])
    decoder = torch.nn.Linear(5, size)
    decoder.load_state_dict(plain["decoder"])
    indices, state = torch.randint(0, size, (7, 3)), torch.randn(3, 3, 5)
    inputs = torch.nn.functional.one_hot(indices, size).float()
    if kind is GRUEncode:
        inputs = torch.tanh(inputs @ plain["embed"]["weight"] + plain["embed"]["bias"])
    output, final = gru(inputs, state)
    for a, b in zip((decoder(output), final), model(indices, state)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_way_there_and_back_on_the_command_line(command, trained, tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "charrnn.export.formats", trained, "--to", "safetensors",
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
    wanted = load(trained / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(value.equal(wanted[name]) for name, value in start.items())
    result = command("train.py", f"resume={file}", cwd=tmp_path)
    assert result.code == 2 and "holds a model alone; use init_from=" in result.err


def test_what_is_wrong_is_one_line(tmp_path, capsys, monkeypatch):
    _, _, file = saved(tmp_path, GRUEncode, "after", "sigmoid")
    (tmp_path / "cut.ckpt").write_bytes(file.read_bytes()[:3000])
    good = export(file, "safetensors")
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-5])
    (tmp_path / "text.safetensors").write_text("no tensors")
    before = sorted(tmp_path.iterdir())
    for arguments, words in (
        ([tmp_path / "nowhere", "--to", "onnx"], "nowhere: no checkpoint there"),
        ([tmp_path / "cut.ckpt", "--to", "onnx"], "cut.ckpt: it is torn"),
        ([tmp_path / "cut.safetensors", "--to", "onnx"], "cut.safetensors: it is damaged"),
        ([tmp_path / "text.safetensors", "--to", "torch"], "text.safetensors: it is damaged"),
        ([file, "--to", "torch", "--out", tmp_path / "no" / "where.pt"], "where.pt"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(list(map(str, arguments)))
        printed = capsys.readouterr()
        assert caught.value.code == 2 and printed.out == ""
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
        assert words in printed.err
        assert sorted(tmp_path.iterdir()) == before
    for missing in ("onnx", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(InputError, match=r'pip install "charrnn\[export\]"'):
            export(file, missing.partition(".")[0])
