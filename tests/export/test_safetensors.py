"""Exported safetensors: loaded by charrnn again, and by any other reader."""

import json

from export_models import saved, variants

import charrnn
from charrnn import GRUEncode
from charrnn.export import export


@variants
def test_an_exported_model_is_loaded_again(tmp_path, kind, reset, gate):
    model, charset, file = saved(tmp_path, kind, reset, gate, dropout=0.5)
    found = charrnn.load(export(file, "safetensors"))
    assert type(found.model) is kind and found.charset == charset
    assert (found.model.gru.reset, found.model.gru.gate) == (reset, gate)
    for name, value in model.state_dict().items():
        assert found.model.state_dict()[name].equal(value), name
    settings = {"length": 30, "seed": 1}
    assert found.generate("ab", **settings) == charrnn.load(file).generate("ab", **settings)


def test_other_readers_find_parameters_and_settings(tmp_path):
    from safetensors import safe_open

    model, charset, file = saved(tmp_path, GRUEncode, "after", "sigmoid")
    with safe_open(export(file, "safetensors", tmp_path / "named.safetensors"), "np") as f:
        assert set(f.keys()) == set(model.state_dict())
        described = json.loads(f.metadata()["charrnn"])
    assert described["charset"] == charset.state_dict()
    assert described["settings"]["model"]["hidden_size"] == 5
    assert described.keys() == {"format", "version", "settings", "charset", "sha256"}


def test_a_model_is_always_the_same_bytes(tmp_path):
    """Though the library writes its metadata in an order of chance."""
    _, _, file = saved(tmp_path, GRUEncode, "after", "sigmoid")
    found = {
        export(file, "safetensors", tmp_path / "same.safetensors").read_bytes() for _ in range(9)
    }
    assert len(found) == 1
