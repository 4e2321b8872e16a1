"""Sampling by the kernels against the loop that calls the model: every variant, odd sizes.

B samples, V vocabulary size, H hidden size, L layers.
"""

import itertools

import numpy as np
import pytest
import torch
from small_models import by_the_loop, drawn
from small_models import native_model as make
from torch import nn

from charrnn import GRUEncode, GRUResize, generation
from charrnn.generation import context, sampler
from charrnn.generation.decoding import Decoding
from charrnn.gru import GATES, RESETS
from charrnn.gru.generate import generator_for, supports_model
from charrnn.models import CharModel

FILTERS = [(1.0, None, None), (0, None, None), (0.7, 5, None), (2.0, None, 0.8), (1.3, 9, 0.6),
           (1.5, None, None, 0.1)]  # fmt: skip


@pytest.fixture(params=[1, 2, 3], ids=lambda n: f"threads_{n}")
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden, samples", [(1, 3), (13, 1), (37, 19)])
def test_kernels_equal_the_loop(kind, reset, gate, layers, hidden, samples):
    model, charset = make(kind, hidden, layers, reset=reset, gate=gate)
    filters = FILTERS[(hidden + layers) % len(FILTERS)]
    assert supports_model(model)
    found = drawn(model, charset, samples, filters, length=40)
    assert found.equal(by_the_loop(model, charset, samples, filters, "ab", 40))


@pytest.mark.parametrize(
    ("filters", "prompt"),
    [
        *((filters, "b") for filters in FILTERS),
        (FILTERS[0], ""),
        (FILTERS[2], "abcab" * 210),  # longer than PREFILL_CHUNK
    ],
    ids=lambda value: str(value)[:20],
)
def test_kernels_equal_the_loop_after_prompts(filters, prompt):
    model, charset = make()
    found = drawn(model, charset, 3, filters, prompt)
    assert found.equal(by_the_loop(model, charset, 3, filters, prompt))
    assert filters[0] == 0 or len(found.unique()) > 5


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0}, {"top_k": 4, "allow": "abcdefgh"}, {"top_p": 0.7, "temperature": 0.5}],
    ids=str,
)
def test_the_guard_against_repetition_equals_the_loop(n, samples, settings, monkeypatch):
    """In a window that is shorter than the text, and before it is full."""
    monkeypatch.setattr(sampler, "RECENT", 40)
    monkeypatch.setattr(context, "RECENT", 40)
    model, charset = make(hidden=9)
    decoding = Decoding(no_repeat=n, **settings)
    found = drawn(model, charset, samples, decoding, "abab", 150)
    assert found.equal(by_the_loop(model, charset, samples, decoding, "abab", 150))
    if n < 3 or settings:
        assert not found.equal(drawn(model, charset, samples, Decoding(**settings), "abab", 150))


def test_the_guard_of_a_prompt_longer_than_its_window():
    model, charset = make(hidden=9)
    for prompt in ("", "ab" * 700):
        found = drawn(model, charset, 2, Decoding(no_repeat=3), prompt, 70)
        assert found.equal(by_the_loop(model, charset, 2, Decoding(no_repeat=3), prompt, 70))


@torch.inference_mode()
@pytest.mark.parametrize("temperature", [0, 0.1, 1.0, 1e-300, 1e300])
@pytest.mark.parametrize("top_k", [None, 1, 2, 3, 6, 100])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.25, 0.5, 0.9, 1.0])
def test_draws_have_exact_probabilities(temperature, top_k, top_p):
    """Logits with ties, at evenly spaced random numbers in [0, 1), both ends included."""
    rows = torch.tensor(
        [
            [0.3, -1.2, 2.0, 0.0, 1.1, -0.4, 0.0, 0.7, -0.1],
            [1.0, 2.0, 1.0, 2.0, 1.0, 0.0, 2.0, 1.0, 0.0],
            [0.0] * 9,
            [50.0, -50.0, 0.0, 49.0, -1000.0, 30.0, 49.0, 48.0, 1.0],
        ],
        dtype=torch.float64,
    )
    uniforms = torch.linspace(0, 1 - 2**-53, 400, dtype=torch.float64)
    some = torch.tensor([0, 1, 1, 0, 1, 1, 0, 1, 1], dtype=torch.bool)
    for logits, (min_p, mask) in itertools.product(rows, [(None, None), (0.3, None), (0.1, some)]):
        filters = temperature, top_k, top_p, min_p, mask
        chances = generation.filter_probabilities(logits[None], *filters)
        expected = generation.sample_next(chances.expand(len(uniforms), -1), uniforms)
        # At a border between characters rounding may decide.
        borders = chances.cumsum(-1)
        clear = ((uniforms[:, None] - borders).abs() > 1e-12).all(1)
        size = len(logits)
        model = GRUEncode(size, 1, 1).double()
        state = model.initial_state(len(uniforms))
        steps = generator_for(model, logits.expand(len(uniforms), -1), state)
        found = steps(uniforms[None], *filters)[0]
        assert found[clear].equal(expected[clear]) and clear.sum() > 200
        assert (chances[0, found] > 0).all()


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_batch_size_and_threads(reset, dtype, threads):
    """Text and logits of a sample are bitwise equal for any number of samples and threads."""
    model, charset = make(hidden=101, dtype=dtype, reset=reset)
    with torch.inference_mode():
        logits, state = model(torch.from_numpy(charset.encode("ab").astype(int))[:, None],
                              model.initial_state(1))  # fmt: skip
        steps = {
            n: generator_for(model, logits[-1].expand(n, -1), state.expand(-1, n, -1))
            for n in (1, 2, 5, 33)
        }
    uniforms = generation.Uniforms(0, 33)(200)
    torch.set_num_threads(1)
    expected = steps[33](uniforms, 0.9, None, None)
    torch.set_num_threads(threads)
    for n, step in steps.items():
        if n < 33:
            parts = uniforms[:, :n].split([1, 99, 100])
            assert torch.cat([step(part, 0.9, None, None) for part in parts]).equal(expected[:, :n])
            assert step.logits.equal(steps[33].logits[:n])


def test_float32_follows_the_loop_until_rounding_decides():
    model, charset = make(hidden=40, dtype=torch.float32)
    found = drawn(model, charset, 8, (1.0, None, None), length=100)
    expected = by_the_loop(model, charset, 8, (1.0, None, None), "ab", 100)
    assert (found == expected).double().mean() > 0.8


def test_chunks_contain_the_same_characters():
    model, charset = make()
    settings = charset.encode("ab"), 3, 7
    context = generation.prefill(model, charset, settings[0])
    parts = list(generation.generate_chunks(model, charset, context, 3, 7, Decoding(), length=500))
    sizes = [len(part) for part in parts]
    assert sizes[:4] == [1, 1, 2, 4] and max(sizes) == 64 and sum(sizes) == 500
    singles = itertools.islice(generation.generate_indices(model, charset, *settings), 500)
    assert torch.cat(parts).equal(torch.stack(list(singles)))


class Other(GRUEncode):
    """A model that a researcher derived."""

    def forward(self, inputs, state):
        logits, state = super().forward(inputs, state)
        return logits * 0 + torch.arange(logits.size(-1)), state


def test_a_modified_model_is_sampled_through_its_forward():
    model, charset = make(Other)
    assert isinstance(model, CharModel) and not supports_model(model)
    assert (drawn(model, charset, 2, (0, None, None), length=9) == len(charset) - 1).all()
    model, charset = make()
    seen = []
    hook = model.gru.register_forward_hook(lambda *args: seen.append(args))
    assert not supports_model(model)
    drawn(model, charset, 1, (1.0, None, None), length=9)
    assert len(seen) >= 9
    hook.remove()
    assert supports_model(model)
    nn.utils.parametrizations.weight_norm(model.decoder)
    assert not supports_model(model)
    assert not supports_model(make(dtype=torch.bfloat16)[0])


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("samples", [1, 5])
def test_logits_that_are_not_finite_are_an_error(temperature, samples):
    model, charset = make()
    nn.init.constant_(model.decoder.bias, np.nan)
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        drawn(model, charset, samples, (temperature, None, None))
