"""Beam search by the kernels against that in Python: settings, widths, ties, and types.

V vocabulary size, H hidden size, L layers.
"""

import pytest
import torch
from small_models import native_model

from charrnn import Charset, GRUEncode, GRUResize
from charrnn.generation import beam, context
from charrnn.generation.beam import beam_search
from charrnn.generation.context import prefill
from charrnn.generation.decoding import Decoding
from charrnn.gru import GATES, RESETS

SETTINGS = [
    {},
    {"length_penalty": 0, "stop": ["e", "cä"]},
    {"length_penalty": 3.0, "stop": ["abc", "q", "☃", "ünd"]},
    {"allow": "abcdefg\n"},
    {"no_repeat": 1},
    {"no_repeat": 3, "allow": "abcd", "stop": "dd"},
]


def both(model, charset, length, prompt="ab", **settings):
    """The text of the kernels; that of Python is the same."""
    decoding = Decoding(**settings)
    found = []
    for backend in ("native", "reference"):
        model.gru.backend = backend
        start = prefill(model, charset, charset.encode(prompt))
        found.append(beam_search(model, charset, start, length, decoding))
    model.gru.backend = "native"
    assert found[0].dtype == torch.int64 and found[0].equal(found[1])
    return found[0]


@pytest.fixture(scope="module")
def model():
    return native_model(hidden=13)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("width", [1, 2, 5, 33])
def test_equals_python(model, settings, width):
    for length in (1, 7, 70 if width < 33 else 20):  # more than one call
        assert len(both(*model, length, beam=width, **settings)) <= length


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("layers", [1, 3])
def test_equals_python_for_each_variant(kind, reset, gate, layers):
    both(*native_model(kind, 20, layers, torch.float32, reset=reset, gate=gate), 25, beam=4)


def test_of_equal_texts_the_first_is_taken(model):
    network, charset = native_model(hidden=4)
    torch.nn.init.zeros_(network.decoder.weight)
    network.decoder.bias.data.copy_(torch.arange(len(charset)).div(4, rounding_mode="floor"))
    assert (both(network, charset, 12, beam=3) == len(charset) - 4).all()
    torch.nn.init.zeros_(network.decoder.bias)
    assert (both(network, charset, 12, beam=3) == 0).all()


def test_a_window_shorter_than_the_text(model, monkeypatch):
    for module in (beam, context):
        monkeypatch.setattr(module, "RECENT", 12)
    both(*model, 40, beam=3, no_repeat=2, prompt="abab" * 9)


def test_documents_end_a_text():
    charset = Charset("ab", documents=True)
    lengths = set()
    for seed in range(4):
        torch.manual_seed(seed)
        model = GRUEncode(len(charset), 5, 1, backend="native").double().eval()
        model.boundary = charset.boundary
        torch.nn.init.normal_(model.decoder.weight)
        lengths |= {len(both(model, charset, 9, "a", beam=3, length_penalty=p)) for p in (0, 5)}
    assert len(lengths) > 1


def test_logits_that_are_not_finite():
    model, charset = native_model()
    start = prefill(model, charset, charset.encode("ab"))
    torch.nn.init.constant_(model.decoder.bias, torch.inf)
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        beam_search(model, charset, start, 9, Decoding(beam=3))
