"""The checkpoint of a real run: plain containers, and a model that loads from anywhere."""

import torch
from helpers import load

import charrnn
from charrnn import GRUEncode


def test_a_checkpoint_holds_plain_containers_and_tensors(trained):
    file = trained / "checkpoints" / "last.ckpt"
    assert torch.serialization.get_unsafe_globals_in_checkpoint(file) == []

    def plain(value):
        if isinstance(value, dict):
            return all(plain(k) and plain(v) for k, v in value.items())
        if isinstance(value, list | tuple):
            return type(value) in (list, tuple) and all(map(plain, value))
        return value is None or type(value) in (bool, int, float, str, torch.Tensor)

    saved = load(file)
    assert plain({k: v for k, v in saved.items() if k != "loops"})
    ours = saved["charrnn"]
    kept = {"format", "version", "settings", "charset", "corpus", "carry", "position", "random",
            "scheduler", "windows", "rounds", "validations"}  # fmt: skip
    assert kept <= ours.keys() and ours["carry"].shape == (2, 3, 8)


def test_a_loaded_model_gives_the_logits_of_the_saved_one(trained, tmp_path, monkeypatch):
    saved = load(trained / "checkpoints" / "last.ckpt")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model = charrnn.load(trained)
    assert torch.get_rng_state().equal(before)
    assert not model.model.training
    expected = GRUEncode(len(model.charset), hidden_size=8)
    expected.load_state_dict({k.removeprefix("model."): v for k, v in saved["state_dict"].items()})
    inputs = torch.randint(0, len(model.charset), (7, 3))
    state = torch.randn(2, 3, 8)
    for a, b in zip(model.model(inputs, state), expected(inputs, state)):
        assert a.equal(b)
    # Nothing but the file is needed.
    (tmp_path / "copy.ckpt").write_bytes((trained / "checkpoints" / "last.ckpt").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert charrnn.load("copy.ckpt").generate(seed=1) == model.generate(seed=1)
