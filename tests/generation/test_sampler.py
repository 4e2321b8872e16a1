"""The sampler: exact probabilities of a tiny model, filters by brute force, and what ends a text.

B samples, V vocabulary size.
"""

import itertools

import numpy as np
import pytest
import torch
from small_models import following, greedy
from small_models import small_model as make

from charrnn import GRUEncode, GRUResize, InputError
from charrnn.generation import sampler
from charrnn.generation.decoding import Decoding, draw, probabilities
from charrnn.generation.sampler import texts


@pytest.fixture(scope="module")
def model():
    return make()


@torch.no_grad()
# The distribution


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_samples_have_the_model_s_exact_probabilities(temperature):
    """Both of the first character and, for each of those, of the one after it."""
    model, samples = make(sharpness=1.5), 20_000
    steps = texts(model.model, model.charset, "ab", 2, samples, seed=1, temperature=temperature)
    next(steps)
    first, second = steps
    p = following(model, "ab").pow(1 / temperature)
    expected_first = (p / p.sum()).numpy()
    counts = np.zeros((len(model.charset), len(model.charset)))
    index = {c: i for i, c in enumerate("\ufffd" + model.charset.alphabet)}
    for a, b in zip(first, second):
        counts[index[a], index[b]] += 1
    expected = np.zeros_like(counts)
    for a, i in index.items():
        q = following(model, "ab" + a).pow(1 / temperature)
        expected[i] = expected_first[i] * (q / q.sum()).numpy()
    expected *= samples
    # Pearson's statistic over the 36 pairs: of 35 degrees of freedom, 1 in 10,000 above 75.
    enough = expected > 5
    statistic = ((counts - expected) ** 2 / expected)[enough].sum()
    assert enough.sum() > 10 and statistic < 75
    assert abs(counts[~enough].sum() - expected[~enough].sum()) < 40
    # And it would notice the neighbour's numbers.
    assert ((counts - np.roll(expected, 1, 1)) ** 2 / np.roll(expected, 1, 1)).sum() > 1000


def test_draw_at_the_borders():
    chances = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64)
    almost = np.nextafter(1.0, 0)
    drawn = {u: draw(chances, torch.tensor([u])).item() for u in (0.0, 0.24, 0.25, 0.5, almost)}
    assert drawn == {0.0: 1, 0.24: 1, 0.25: 3, 0.5: 3, almost: 3}  # never one without a chance


# The filters


def by_brute_force(logits, temperature, top_k, top_p, min_p, allowed):
    """The definition, in Python."""
    order = [i for i in sorted(range(len(logits)), key=lambda i: -logits[i]) if i in allowed]
    if temperature == 0:
        return [float(i == order[0]) for i in range(len(logits))]
    kept = set(order)
    if top_k is not None and top_k < len(order):  # what equals the k-th stays with it
        kept = {i for i in order if logits[i] >= logits[order[top_k - 1]]}
    powers = [(np.float64(x) - logits[order[0]]) / temperature for x in logits]
    weights = [np.exp(x) if i in kept else 0.0 for i, x in enumerate(powers)]
    if min_p is not None:
        weights = [w if w >= min_p * max(weights) else 0.0 for w in weights]
    chances = [w / sum(weights) for w in weights]
    if top_p is not None:
        fewest, together = set(), 0.0
        for i in order:
            if together >= top_p:
                break
            fewest.add(i)
            together += chances[i]
        chances = [c if i in fewest else 0.0 for i, c in enumerate(chances)]
    return [c / sum(chances) for c in chances]


LOGITS = [
    [0.3, -1.2, 2.0, 0.0, 1.1, -0.4],
    [1.0, 2.0, 1.0, 2.0, 1.0, 0.0],  # ties
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [50.0, -50.0, 0.0, 49.0, -1000.0, 30.0],
]


@pytest.mark.parametrize("temperature", [0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 2, 3, 6, 100])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.25, 0.5, 0.9, 1.0])
def test_filters_are_as_defined(temperature, top_k, top_p):
    for min_p, allowed in itertools.product([None, 1e-9, 0.3, 1.0], [range(6), [1, 3, 4], [4]]):
        mask = None if len(allowed) == 6 else torch.tensor([i in allowed for i in range(6)])
        found = probabilities(torch.tensor(LOGITS), temperature, top_k, top_p, min_p, mask)
        settings = temperature, top_k, top_p, min_p, allowed
        expected = torch.tensor([by_brute_force(row, *settings) for row in LOGITS])
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(found.sum(-1), torch.ones(4).double())


def test_extreme_temperatures_stay_finite():
    for temperature in (1e-300, 1e300):
        found = probabilities(torch.tensor(LOGITS), temperature)
        assert found.isfinite().all()
    assert probabilities(torch.tensor(LOGITS), 1e-300)[0].tolist() == [0, 0, 1, 0, 0, 0]


def test_top_k_and_top_p_bound_what_is_written(model):
    likeliest = following(model, "a").sort(descending=True)
    characters = "\ufffd" + model.charset.alphabet
    for settings, count in (({"top_k": 2}, 2), ({"top_p": likeliest.values[0].item() + 1e-6}, 2)):
        steps = texts(model.model, model.charset, "a", 1, 500, seed=0, **settings)
        next(steps)
        assert set(next(steps)) == {characters[i] for i in likeliest.indices[:count].tolist()}


# The text


@torch.no_grad()
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


def test_without_a_seed_each_is_another(model):
    assert model.generate("a", 40, temperature=2) != model.generate("a", 40, temperature=2)


def test_the_first_of_many_is_the_single_one(model):
    many = model.generate_many(3, "ab", 40, seed=7)
    assert many[0] == model.generate("ab", 40, seed=7)
    assert many[:2] == model.generate_many(2, "ab", 40, seed=7)
    assert len(set(many)) == 3 and {len(t) for t in many} == {42}


@pytest.mark.parametrize("length", [1, 9, 10, 11, 27])
def test_a_prompt_of_any_length_warms_the_state(model, length, monkeypatch):
    monkeypatch.setattr(sampler, "CHUNK", 10)
    text = "".join(itertools.islice(itertools.cycle("abcadb\nc"), length))
    prompt = model.charset.encode(text)
    found = next(sampler.indices(model.model, model.charset, prompt, 1, 0, Decoding(0)))
    assert found.item() == following(model, text).argmax().item()
    # All of its logits too, not the likeliest alone.
    chosen = [
        next(sampler.indices(model.model, model.charset, prompt, 1, seed)).item()
        for seed in range(20)
    ]
    chances = following(model, text)[None]
    uniforms = [sampler.Uniforms(seed, 1, length)(256)[0] for seed in range(20)]
    assert chosen == [draw(chances, u).item() for u in uniforms]


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
        # It ends with the stop string, and what stands in the prompt ends nothing.
        assert model.generate("ab", 60, seed=seed, stop=stop) == whole[: min(ends, default=62)]


def test_samples_stop_each_for_itself(model):
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


def test_skip_leaves_what_the_model_knows(model):
    """U+FFFD is index 0, which the model knows, with other unknown characters or without."""
    assert model.generate("a\ufffdb", 0, unknown="skip") == "a\ufffdb"
    assert model.generate("a\ufffdbx", 0, unknown="skip") == "a\ufffdb"


def test_nothing_known_is_as_an_empty_prompt(model):
    assert model.generate("xyz", 20, seed=1, unknown="skip") == model.generate("", 20, seed=1)


# Bytes


@pytest.fixture(scope="module")
def by_bytes():
    return make("€é😀\n", "byte")


def test_bytes_come_as_whole_characters(by_bytes):
    """Any bytes may follow any others here, so that many are no UTF-8."""
    for seed in range(5):
        parts = list(by_bytes.stream("€é", 50, seed=seed, temperature=1.5))
        assert parts[:2] == ["€", "é"]
        indices = sampler.indices(
            by_bytes.model, by_bytes.charset, by_bytes.charset.encode("€é"), 1, seed, Decoding(1.5)
        )
        drawn = [step.item() for step in itertools.islice(indices, 50)]  # length counts bytes
        assert "".join(parts[2:]) == by_bytes.charset.decode(drawn)


def test_bytes_of_characters_stop(by_bytes):
    whole = by_bytes.generate("€", 200, seed=2)
    assert "\n" in whole
    found = by_bytes.generate("€", 200, seed=2, stop="\n")
    assert found == whole[: whole.index("\n") + 1]


def test_unknown_bytes(by_bytes):
    with pytest.raises(InputError, match="prompt: the model does not know byte 0x78;"):
        by_bytes.generate("x", 5)
    assert by_bytes.generate("x€", 0, unknown="skip") == "€"
    assert by_bytes.generate("x€", 0, unknown="replace") == "\ufffd€"


# Settings, and what is left alone


@pytest.mark.parametrize(
    "bad",
    [
        {"length": -1}, {"length": 1.5}, {"temperature": -1}, {"temperature": float("nan")},
        {"temperature": float("inf")}, {"temperature": "1"}, {"top_k": 0}, {"top_p": 0},
        {"top_p": 1.1}, {"min_p": 0}, {"min_p": 1.1}, {"allow": ""}, {"allow": "re:x"},
        {"allow": "re:("}, {"no_repeat": 0}, {"beam": 0}, {"length_penalty": -1}, {"seed": -1},
        {"seed": 2**64}, {"num_samples": 0}, {"stop": ""}, {"stop": ["a", ""]}, {"unknown": "drop"},
        {"temperature": 0.5, "beam": 2}, {"top_k": 3, "beam": 2}, {"top_p": 0.5, "beam": 2},
        {"min_p": 0.1, "beam": 2}, {"num_samples": 2, "beam": 2}, {"stop": 1},
    ],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_named(model, bad):
    # At once, not when the first character is asked for.
    with pytest.raises(InputError, match=rf"^{next(iter(bad))}="):
        texts(model.model, model.charset, **bad)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_things_as_they_were(training):
    model = make(dropout=0.5)
    model.model.train(training)
    torch.manual_seed(1)
    np.random.seed(1)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    text = model.generate("ab", 20, seed=1)
    assert model.model.training == model.model.dropout.training == training
    for part in itertools.islice(model.stream("ab", 20, seed=1), 5):
        assert part
    assert model.model.training == training  # also where a stream is left before its end
    assert torch.get_rng_state().equal(before)
    assert (np.random.get_state()[1] == before_numpy).all()
    assert text == model.generate("ab", 20, seed=1)  # dropout had no part in it
    assert all(p.grad is None and p.requires_grad for p in model.model.parameters())


def test_activations_and_scores_of_a_text(model):
    text = "abcab"
    activations = model.activations(text)
    assert activations.shape == (2, 5, 5)
    nats = [
        -following(model, text[:i])[model.charset.encode(text[i])[0]].log() for i in range(1, 5)
    ]
    np.testing.assert_allclose(model.score(text), nats, rtol=1e-9)
    state = model.model.initial_state(1)
    for t, index in enumerate(model.charset.encode(text).tolist()):
        with torch.no_grad():
            _, state = model.model(torch.tensor([[index]]), state)
        np.testing.assert_allclose(activations[:, :, t], state[:, 0].numpy(), rtol=1e-9)
    for short in ("", "a"):
        assert model.score(short).shape == (0,)
        assert model.activations(short).shape == (2, 5, len(short))
