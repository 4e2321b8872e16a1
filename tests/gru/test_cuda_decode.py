"""Text by the CUDA kernels against the kernels for a CPU, emulated and on a GPU.

B samples, V vocabulary size, H hidden size, L layers, N characters.
"""

import pytest
import torch

from charrnn import GRUEncode, GRUResize
from charrnn.gru import GATES, RESETS
from charrnn.gru.cuda import decode
from charrnn.gru.generate import Generator, generator_for

V, H, N = 37, 10, 9


def models(kind, device, rows, reset="after", gate="sigmoid"):
    """What generates on a CPU, and what does by the CUDA kernels."""
    torch.manual_seed(rows)
    model = kind(V, H, 2, reset=reset, gate=gate).eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    state, logits = torch.randn(2, rows, H) / 2, torch.randn(rows, V)
    made = []
    with torch.inference_mode():
        for what, where in ((Generator, torch.device("cpu")), (decode.Generator, device)):
            model.to(where)
            characters = torch.arange(V, device=where)[:, None]
            made.append(what(
                *model.features(characters), model.gru.all_weights,
                (model.decoder.weight, model.decoder.bias), state.to(where), logits.to(where),
                reset=reset, gate=gate,
            ))  # fmt: skip
    return made


def both(generators, rows, steps, *filters):
    uniforms = torch.rand(steps, rows, dtype=torch.float64)
    with torch.inference_mode():
        return [generator(uniforms, *filters) for generator in generators]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Products of many samples in float32, so that texts agree."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("rows", [1, 3, 11], ids=["one", "few", "many"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", [GRUEncode, GRUResize])
def test_the_same_text(device, kind, reset, gate, rows):
    generators = models(kind, device, rows, reset, gate)
    for steps in (N, 1, 2):
        expected, found = both(generators, rows, steps, 1.0, None, None)
        assert found.dtype == torch.int64 and found.equal(expected)


@pytest.mark.parametrize(
    "filters",
    [
        (0.5, None, None), (0.0, None, None), (1.0, 3, None), (1.0, None, 0.6), (1.0, None, 1.0),
        (1.0, None, None, 0.05), (0.7, 9, 0.8, 0.01), (1.0, 100, None),
        (1.0, None, 0.5, None, torch.arange(V) % 3 == 0),
    ],
    ids=str,
)  # fmt: skip
def test_filters(device, filters):
    expected, found = both(models(GRUEncode, device, 5), 5, N, *filters)
    assert found.equal(expected)


def test_equal_logits(device):
    """Of equals the first are kept, and the first is the likeliest."""
    for filters in ((1.0, None, 0.3), (0.0, None, None), (1.0, 2, None)):
        generators = models(GRUEncode, device, 4)
        with torch.inference_mode():
            for generator in generators:
                generator.logits.fill_(0.5)
        expected, found = both(generators, 4, 1, *filters)
        assert found.equal(expected)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite(device, bad):
    _, generator = models(GRUEncode, device, 2)
    with torch.inference_mode():
        generator.logits[1, 3] = bad
    with pytest.raises(FloatingPointError, match="finite"):
        both([generator], 2, 1, 1.0, None, None)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("reset", RESETS)
def test_a_graph_goes_on_with_the_same_text(reset, rows):
    generators = models(GRUEncode, torch.device("cuda"), rows, reset)
    for steps in (5, 64, 130, 3):
        expected, found = both(generators, rows, steps, 1.0, None, None)
        assert (found == expected).float().mean() > 0.97  # rounding may part one of the texts


@pytest.mark.gpu
def test_products_of_halves(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    expected, found = both(models(GRUEncode, torch.device("cuda"), 64), 64, 3, 1.0, None, None)
    assert (found == expected).float().mean() > 0.95


@pytest.mark.gpu
def test_a_model_on_a_gpu_takes_these_kernels():
    model = GRUEncode(V, H).cuda().eval()
    state = model.initial_state(2)
    made = generator_for(model, torch.zeros(2, V, device="cuda"), state)
    assert isinstance(made, decode.Generator)
