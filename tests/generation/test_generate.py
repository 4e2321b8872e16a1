"""Texts from prompts: stop strings, unknown characters, bytes, settings, side effects."""

import itertools

import numpy as np
import pytest
import torch
from small_models import greedy
from small_models import small_model as make

from charrnn import GRUEncode, GRUResize, InputError
from charrnn.generation import Decoding, generate_indices, generate_texts


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
def test_temperature_0_takes_the_likeliest(kind):
    model = make(kind=kind)
    expected = greedy(model, "abc", 30)
    assert model.generate("abc", 30, temperature=0, seed=1) == expected
    assert model.generate("abc", 30, temperature=0) == expected  # whatever the seed


def test_generate_is_the_joined_stream(model):
    settings = {"length": 50, "temperature": 0.8, "top_k": 4, "top_p": 0.95, "seed": 3}
    parts = list(model.stream("ab", **settings))
    assert all(len(part) == 1 for part in parts) and len(parts) == 52
    text = model.generate("ab", **settings)
    assert text == "".join(parts) and text.startswith("ab")
    assert text == model.generate("ab", **settings)
    assert text != model.generate("ab", **{**settings, "seed": 4})
    assert text[:22] == model.generate("ab", **{**settings, "length": 20})


def test_without_a_seed_texts_differ(model):
    assert model.generate("a", 40, temperature=2) != model.generate("a", 40, temperature=2)


def test_the_first_of_many_is_the_single_one(model):
    many = model.generate_many(3, "ab", 40, seed=7)
    assert many[0] == model.generate("ab", 40, seed=7)
    assert many[:2] == model.generate_many(2, "ab", 40, seed=7)
    assert len(set(many)) == 3 and {len(t) for t in many} == {42}


@pytest.mark.parametrize("settings", [{}, {"stop": "d"}, {"no_repeat": 3}, {"beam": 2}], ids=str)
def test_texts_of_several_prompts_are_those_of_each(model, settings):
    prompts, settings = ["ab", "", "abcd" * 40], {"seed": 7} | settings
    for backend in ("native", "reference"):
        model.model.gru.backend = backend
        texts = model.generate(prompts, 30, **settings)
        assert texts == [model.generate(prompt, 30, **settings) for prompt in prompts]
    if "beam" not in settings:
        many = model.generate_many(2, prompts, 30, **settings)
        assert many == [model.generate_many(2, prompt, 30, **settings) for prompt in prompts]


def test_several_prompts(model):
    assert model.generate([], 5) == [] and model.generate(("a", "ab"), 0) == ["a", "ab"]
    first, second = model.generate(["a", "a"], 40, temperature=2)
    assert first != second  # without a seed, each has its own
    for bad in (3, b"ab", ["a", 1]):
        with pytest.raises(InputError, match=r"prompt=.* must be a text or a list of texts"):
            model.generate(bad)
    with pytest.raises(InputError, match=r"prompt=.* must be one text"):
        model.stream(["a", "b"])


def test_an_empty_prompt_starts_after_a_newline(model):
    assert model.generate("", 20, temperature=0) == greedy(model, "\n", 20)[1:]
    without = make("abcd")
    assert without.generate("", 20, temperature=0) == greedy(without, "\ufffd", 20)[1:]


def test_length_0_is_the_prompt(model):
    assert model.generate("abc", 0) == "abc"
    assert model.generate("", 0) == ""
    assert list(model.stream("abc", 0)) == ["a", "b", "c"]


@pytest.mark.parametrize("stop", ["b", ["b"], ["dd", "b"], "ab", ["a\n", "bc", "ca"]], ids=str)
def test_a_stop_string_ends_a_sample(model, stop):
    stops = [stop] if isinstance(stop, str) else stop
    for seed in range(10):
        whole = model.generate("ab", 60, seed=seed)
        ends = [whole.index(s, 2) + len(s) for s in stops if s in whole[2:]]
        # It ends with the stop string; one in the prompt has no effect.
        assert model.generate("ab", 60, seed=seed, stop=stop) == whole[: min(ends, default=62)]


def test_each_sample_stops_at_its_own_stop_string(model):
    whole = model.generate_many(5, "a", 60, seed=1)
    stopped = model.generate_many(5, "a", 60, seed=1, stop="d")
    expected = [t if "d" not in t else t[: t.index("d") + 1] for t in whole]
    assert stopped == expected and len(set(map(len, stopped))) > 1


def test_unknown_characters(model):
    with pytest.raises(InputError, match=r"prompt: .*'x' \(U\+0078\), 'é' \(U\+00E9\)"):
        model.generate("axbéx", 5)
    assert model.generate("axbé", 0, unknown="skip") == "ab"
    assert model.generate("axbé", 0, unknown="replace") == "a\ufffdb\ufffd"
    continued = model.generate("axb", 30, seed=1, unknown="skip")
    assert continued == model.generate("ab", 30, seed=1)
    continued = model.generate("axb", 30, seed=1, unknown="replace")
    assert continued == model.generate("a\ufffdb", 30, seed=1)


def test_skip_keeps_known_characters(model):
    """U+FFFD is index 0, which the model knows, with other unknown characters or without."""
    assert model.generate("a\ufffdb", 0, unknown="skip") == "a\ufffdb"
    assert model.generate("a\ufffdbx", 0, unknown="skip") == "a\ufffdb"


def test_a_prompt_without_known_characters_is_empty(model):
    assert model.generate("xyz", 20, seed=1, unknown="skip") == model.generate("", 20, seed=1)


@pytest.fixture(scope="module")
def by_bytes():
    return make("€é😀\n", "byte")


def test_bytes_come_as_whole_characters(by_bytes):
    """Random weights generate many bytes that are not valid UTF-8."""
    for seed in range(5):
        parts = list(by_bytes.stream("€é", 50, seed=seed, temperature=1.5))
        assert parts[:2] == ["€", "é"]
        indices = generate_indices(
            by_bytes.model, by_bytes.charset, by_bytes.charset.encode("€é"), 1, seed, Decoding(1.5)
        )
        sampled = [step.item() for step in itertools.islice(indices, 50)]  # length counts bytes
        assert "".join(parts[2:]) == by_bytes.charset.decode(sampled)


def test_bytes_stop_at_a_stop_string(by_bytes):
    whole = by_bytes.generate("€", 200, seed=2)
    assert "\n" in whole
    found = by_bytes.generate("€", 200, seed=2, stop="\n")
    assert found == whole[: whole.index("\n") + 1]


def test_unknown_bytes(by_bytes):
    with pytest.raises(InputError, match="prompt: the model does not know byte 0x78;"):
        by_bytes.generate("x", 5)
    assert by_bytes.generate("x€", 0, unknown="skip") == "€"
    assert by_bytes.generate("x€", 0, unknown="replace") == "\ufffd€"


@pytest.mark.parametrize(
    "bad",
    [
        {"length": -1}, {"length": 1.5}, {"temperature": -1}, {"temperature": float("nan")},
        {"temperature": float("inf")}, {"temperature": "1"}, {"top_k": 0}, {"top_p": 0},
        {"top_p": 1.1}, {"min_p": 0}, {"min_p": 1.1}, {"allow": ""}, {"allow": "re:x"},
        {"allow": "re:("}, {"no_repeat": 0}, {"beam": 0}, {"length_penalty": -1}, {"seed": -1},
        {"seed": 2**64}, {"num_samples": 0}, {"num_samples": 10**7},
        {"stop": ""}, {"stop": ["a", ""]}, {"unknown": "drop"},
        {"temperature": 0.5, "beam": 2}, {"top_k": 3, "beam": 2}, {"top_p": 0.5, "beam": 2},
        {"min_p": 0.1, "beam": 2}, {"num_samples": 2, "beam": 2}, {"stop": 1},
    ],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_named(model, bad):
    # By the call itself, not when the first item is requested.
    with pytest.raises(InputError, match=rf"^{next(iter(bad))}="):
        generate_texts(model.model, model.charset, **bad)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_has_no_side_effects(training):
    model = make(dropout=0.5)
    model.model.train(training)
    torch.manual_seed(1)
    np.random.seed(1)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    text = model.generate("ab", 20, seed=1)
    assert model.model.training == model.model.dropout.training == training
    for part in itertools.islice(model.stream("ab", 20, seed=1), 5):
        assert part
    assert model.model.training == training  # also after a stream that was not finished
    assert torch.get_rng_state().equal(before)
    assert (np.random.get_state()[1] == before_numpy).all()
    assert text == model.generate("ab", 20, seed=1)  # dropout was off
    assert all(p.grad is None and p.requires_grad for p in model.model.parameters())
