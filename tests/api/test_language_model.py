"""LanguageModel: what it says of itself, saving, keywords."""

import inspect

import pytest
from small_models import small_model

import charrnn


@pytest.fixture(scope="module")
def model(trained):
    return charrnn.load(trained)


def test_repr(model):
    text = repr(model)
    assert text.startswith("LanguageModel(GRUEncode, hidden_size=8, num_layers=2, ")
    assert " parameters, " in text and ", window 40, best validation " in text


def test_a_saved_model_is_loaded_again(model, tmp_path):
    model.save(tmp_path / "model.ckpt")
    again = charrnn.load(tmp_path / "model.ckpt")
    assert repr(again) == repr(model)
    settings = {"length": 20, "seed": 1}
    assert again.generate("def ", **settings) == model.generate("def ", **settings)


def test_a_model_without_settings_is_not_saved(tmp_path, trained):
    for model in (small_model(), charrnn.load([trained, trained])):
        with pytest.raises(charrnn.InputError, match="only a model of a checkpoint"):
            model.save(tmp_path / "model.ckpt")


@pytest.mark.parametrize("name", ["generate", "stream", "generate_many"])
def test_keywords(model, name):
    method = getattr(model, name)
    assert {"temperature", "top_k", "seed", "stop"} <= set(inspect.signature(method).parameters)
    first = [2] if name == "generate_many" else []
    with pytest.raises(charrnn.InputError, match=f"of {name}; did you mean temperature?"):
        method(*first, temprature=0.5)
