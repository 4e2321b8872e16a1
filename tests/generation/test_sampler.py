"""The sampler: exact probabilities of a tiny model, and prompts of any length.

V vocabulary size.
"""

import itertools

import numpy as np
import pytest
from small_models import following
from small_models import small_model as make

from charrnn.generation import (
    Decoding,
    Uniforms,
    context,
    generate_indices,
    generate_texts,
    sample_next,
)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_samples_have_the_exact_probabilities_of_the_model(temperature):
    """Of the first character, and of the second given the first."""
    model, samples = make(sharpness=1.5), 20_000
    steps = generate_texts(
        model.model, model.charset, "ab", 2, samples, seed=1, temperature=temperature
    )
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
    # The statistic detects probabilities shifted by one character.
    assert ((counts - np.roll(expected, 1, 1)) ** 2 / np.roll(expected, 1, 1)).sum() > 1000


def test_top_k_and_top_p_bound_the_characters(model):
    likeliest = following(model, "a").sort(descending=True)
    characters = "\ufffd" + model.charset.alphabet
    for settings, count in (({"top_k": 2}, 2), ({"top_p": likeliest.values[0].item() + 1e-6}, 2)):
        steps = generate_texts(model.model, model.charset, "a", 1, 500, seed=0, **settings)
        next(steps)
        assert set(next(steps)) == {characters[i] for i in likeliest.indices[:count].tolist()}


@pytest.mark.parametrize("length", [1, 9, 10, 11, 27])
def test_a_prompt_of_any_length_is_prefilled(model, length, monkeypatch):
    monkeypatch.setattr(context, "PREFILL_CHUNK", 10)
    text = "".join(itertools.islice(itertools.cycle("abcadb\nc"), length))
    prompt = model.charset.encode(text)
    found = next(generate_indices(model.model, model.charset, prompt, 1, 0, Decoding(0)))
    assert found.item() == following(model, text).argmax().item()
    # All of the logits, not only the highest.
    chosen = [
        next(generate_indices(model.model, model.charset, prompt, 1, seed)).item()
        for seed in range(20)
    ]
    probabilities = following(model, text)[None]
    uniforms = [Uniforms(seed, 1, length)(256)[0] for seed in range(20)]
    assert chosen == [sample_next(probabilities, u).item() for u in uniforms]
