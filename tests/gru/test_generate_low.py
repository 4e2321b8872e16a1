"""Sampling with weights of 16 and of 8 bits: the numbers are those of weights rounded before.

B samples, V vocabulary size, H hidden size, L layers.
"""

import copy

import pytest
import torch
from small_models import native_model

from charrnn import GRUEncode, InputError, generation
from charrnn.export.quantize import quantize
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


def with_rounded_weights(model, bits):
    """A copy whose products have rounded weights; W_ih of layer 0 is not a product there."""
    model = copy.deepcopy(model)
    for name, p in model.named_parameters():
        if p.dim() == 2 and name not in ("embed.weight", "gru.weight_ih_l0"):
            p.data = p.data.bfloat16().float() if bits == 16 else quantize(p.data, bits)[1]
    return model


def random_model(hidden, reset="after", gate="sigmoid"):
    torch.manual_seed(hidden)
    model = GRUEncode(V, hidden, 2, reset=reset, gate=gate, backend="native").eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=2 * hidden**-0.5)
    return model


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("hidden", [1, 13, 64, 101])
def test_numbers_of_16_bits_are_those_of_rounded_weights(reset, gate, hidden):
    model = random_model(hidden, reset, gate)
    for samples in (1, 4):
        found, expected = (
            drawn(model, 16, samples),
            drawn(with_rounded_weights(model, 16), 32, samples),
        )
        assert all(map(torch.equal, found, expected))
    one, four = drawn(model, 16, 1), drawn(model, 16, 4)
    assert torch.equal(one[0][:, 0], four[0][:, 0]) and torch.equal(one[1][0], four[1][0])
    assert not torch.equal(one[1], drawn(model, 32, 1)[1])


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("hidden", [1, 2, 13, 64, 101, 300])
def test_numbers_of_8_bits_are_those_of_rounded_weights(reset, gate, hidden):
    """But for the rounding of states, to 15 bits at these sizes."""
    model = random_model(hidden, reset, gate)
    exact = with_rounded_weights(model, 8)
    for samples in (1, 5):
        found, expected = drawn(model, 8, samples, 6), drawn(exact, 32, samples, 6)
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=2e-3)


def test_8_bits_of_a_sample_do_not_depend_on_the_others():
    for hidden in (13, 64, 101):
        model = random_model(hidden, "before" if hidden == 64 else "after")
        indices, logits = drawn(model, 8, 5)
        for samples in (1, 2, 3, 4):
            found = drawn(model, 8, samples)
            assert torch.equal(found[0], indices[:, :samples])
            assert torch.equal(found[1], logits[:samples])


def test_8_bits_of_states_beyond_1_and_of_zeros():
    """A state that a user gives may be large; a row of zeros has no largest weight."""
    model = random_model(40)
    model.decoder.weight.data[3] = 0
    made = [
        generator_for(m, torch.zeros(1, V), torch.full((2, 1, 40), 50.0), bits)
        for m, bits in ((model, 8), (with_rounded_weights(model, 8), 32))
    ]
    uniforms = torch.full((1, 1), 0.5, dtype=torch.float64)
    assert torch.equal(*(each(uniforms, 1.0, None, None) for each in made))
    torch.testing.assert_close(made[0].logits, made[1].logits, rtol=1e-3, atol=0.05)
    assert made[0].logits[0, 3] == model.decoder.bias[3]


@pytest.mark.parametrize("precision", [16, 8])
@pytest.mark.parametrize("name", ["decoder.weight", "gru.weight_hh_l1", "gru.bias_hh_l0"])
def test_weights_that_are_not_numbers_are_an_error(precision, name):
    model = random_model(20)
    model.get_parameter(name).data.view(-1)[7] = torch.nan
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        drawn(model, precision, 1)


def texts(precision, kind="native", dtype=torch.float32, **settings):
    model, charset = native_model()
    model.to(dtype).gru.backend = kind
    steps = generation.generate_texts(
        model, charset, "ab", 30, seed=1, precision=precision, **settings
    )
    return "".join(part for (part,) in steps)


@pytest.mark.parametrize("precision", [16, 8])
def test_a_text(precision):
    text = texts(precision)
    assert len(text) == len(texts(32)) and text == texts(precision)
    assert text.startswith("ab")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": 4}, "precision=4 must be 32, 16 or 8"),
        ({"precision": 16, "beam": 2}, "precision=16 must be 32 with beam"),
        ({"precision": 16, "kind": "reference"}, "precision=16 must be 32: the native kernels"),
        ({"precision": 8, "dtype": torch.float64}, "precision=8: for float32 models on a CPU"),
    ],
    ids=["4_bits", "beam", "reference", "float64"],
)
def test_what_has_no_fewer_bits(settings, message):
    with pytest.raises(InputError, match=message):
        texts(**settings)
