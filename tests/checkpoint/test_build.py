"""Building models from checkpoints: the saved model's logits, and nothing but models."""

import pytest
import torch
from small_models import saved_model as make

from charrnn import GRUEncode, GRUResize, InputError
from charrnn.checkpoint.build import build_model
from charrnn.checkpoint.format import read
from charrnn.checkpoint.serialization import save

kinds = pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)


@kinds
@pytest.mark.parametrize("reset", ["after", "before"])
def test_saved_models_are_built_again(tmp_path, kind, reset):
    model, charset, saved = make(kind, "abc", reset=reset, gate="hard_sigmoid", dropout=0.5)
    save(saved, tmp_path / "a" / "model.ckpt")
    found, found_charset = build_model(read(tmp_path / "a" / "model.ckpt"))
    assert type(found) is kind and found_charset == charset and not found.training
    inputs, state = torch.randint(0, 4, (7, 3)), torch.randn(3, 3, 5)
    for a, b in zip(found(inputs, state), model(inputs, state)):
        assert a.equal(b)


def test_only_models_are_built():
    _, _, saved = make(GRUEncode, "abc")
    for target in (
        "os.system",
        "charrnn.models.uniform_fan_in",
        "charrnn.models.math",
        "GRUEncode",
    ):
        saved["charrnn"]["settings"]["model"]["_target_"] = target
        with pytest.raises(InputError, match="is no model"):
            build_model(saved)
