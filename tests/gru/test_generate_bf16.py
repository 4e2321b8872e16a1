"""Sampling with weights of 16 bits: the numbers are those of weights rounded before.

B samples, V vocabulary size, H hidden size, L layers.
"""

import copy

import pytest
import torch
from small_models import native_model

from charrnn import GRUEncode, InputError, generation
from charrnn.gru import GATES, RESETS
from charrnn.gru.generate import generator_for

V = 23


def drawn(model, precision, samples, length=40):
    """Indices, and the logits after them."""
    generator = torch.Generator().manual_seed(3)
    uniforms = torch.rand(length, 5, dtype=torch.float64, generator=generator)[:, :samples]
    logits = torch.randn(5, V, generator=generator)[:samples]
    with torch.inference_mode():
        made = generator_for(model, logits, model.initial_state(samples), precision)
        indices = torch.cat([made(part, 1.0, None, None) for part in uniforms.split(7)])
    return indices, made.logits


def with_rounded_weights(model):
    """A copy whose products have weights of bfloat16; W_ih of layer 0 is not a product there."""
    model = copy.deepcopy(model)
    for name, p in model.named_parameters():
        if p.dim() == 2 and name not in ("embed.weight", "gru.weight_ih_l0"):
            p.data = p.data.bfloat16().float()
    return model


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("hidden", [1, 13, 64, 101])
def test_numbers_are_those_of_rounded_weights(reset, gate, hidden):
    torch.manual_seed(hidden)
    model = GRUEncode(V, hidden, 2, reset=reset, gate=gate, backend="native").eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=2 * hidden**-0.5)
    for samples in (1, 4):
        found, expected = drawn(model, 16, samples), drawn(with_rounded_weights(model), 32, samples)
        assert all(map(torch.equal, found, expected))
    one, four = drawn(model, 16, 1), drawn(model, 16, 4)
    assert torch.equal(one[0][:, 0], four[0][:, 0]) and torch.equal(one[1][0], four[1][0])
    assert not torch.equal(one[1], drawn(model, 32, 1)[1])


def texts(precision, kind="native", dtype=torch.float32, **settings):
    model, charset = native_model()
    model.to(dtype).gru.backend = kind
    steps = generation.generate_texts(
        model, charset, "ab", 30, seed=1, precision=precision, **settings
    )
    return "".join(part for (part,) in steps)


def test_a_text():
    text = texts(16)
    assert len(text) == len(texts(32)) and text == texts(16)
    assert text.startswith("ab")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": 8}, "precision=8 must be 32 or 16"),
        ({"precision": 16, "beam": 2}, "precision=16 must be 32 with beam"),
        ({"precision": 16, "kind": "reference"}, "precision=16 must be 32: the native kernels"),
        ({"precision": 16, "dtype": torch.float64}, "precision=16: for float32 models on a CPU"),
    ],
    ids=["8_bits", "beam", "reference", "float64"],
)
def test_what_has_no_16_bits(settings, message):
    with pytest.raises(InputError, match=message):
        texts(**settings)
