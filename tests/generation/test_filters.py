"""Filters against their definition, and sampling at the ends of [0, 1).

B samples, V vocabulary size.
"""

import itertools

import numpy as np
import pytest
import torch

from charrnn.generation.filters import filter_probabilities, ngram_mask, sample_next


def test_sampling_at_the_ends_of_the_unit_interval():
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64)
    almost = np.nextafter(1.0, 0)
    drawn = {
        u: sample_next(probabilities, torch.tensor([u])).item()
        for u in (0.0, 0.24, 0.25, 0.5, almost)
    }
    assert drawn == {0.0: 1, 0.24: 1, 0.25: 3, 0.5: 3, almost: 3}  # never one of probability 0


def by_brute_force(logits, temperature, top_k, top_p, min_p, allowed):
    """The definition, in Python."""
    order = [i for i in sorted(range(len(logits)), key=lambda i: -logits[i]) if i in allowed]
    if temperature == 0:
        return [float(i == order[0]) for i in range(len(logits))]
    kept = set(order)
    if top_k is not None and top_k < len(order):  # ties with the k-th stay
        kept = {i for i in order if logits[i] >= logits[order[top_k - 1]]}
    powers = [(np.float64(x) - logits[order[0]]) / temperature for x in logits]
    weights = [np.exp(x) if i in kept else 0.0 for i, x in enumerate(powers)]
    if min_p is not None:
        weights = [w if w >= min_p * max(weights) else 0.0 for w in weights]
    probabilities = [w / sum(weights) for w in weights]
    if top_p is not None:
        fewest, total = set(), 0.0
        for i in order:
            if total >= top_p:
                break
            fewest.add(i)
            total += probabilities[i]
        probabilities = [c if i in fewest else 0.0 for i, c in enumerate(probabilities)]
    return [c / sum(probabilities) for c in probabilities]


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
        found = filter_probabilities(torch.tensor(LOGITS), temperature, top_k, top_p, min_p, mask)
        settings = temperature, top_k, top_p, min_p, allowed
        expected = torch.tensor([by_brute_force(row, *settings) for row in LOGITS])
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(found.sum(-1), torch.ones(4).double())


def test_extreme_temperatures_stay_finite():
    for temperature in (1e-300, 1e300):
        found = filter_probabilities(torch.tensor(LOGITS), temperature)
        assert found.isfinite().all()
    assert filter_probabilities(torch.tensor(LOGITS), 1e-300)[0].tolist() == [0, 0, 1, 0, 0, 0]


def test_a_mask_renormalizes():
    """Probabilities of allowed characters keep their proportions."""
    logits = torch.tensor([[0.3, -1.2, 2.0, 0.0, 1.1]])
    mask = torch.tensor([True, False, False, True, True])
    probabilities, whole = filter_probabilities(logits, allowed=mask), logits.double().softmax(-1)
    torch.testing.assert_close(
        probabilities, whole * mask / (whole * mask).sum(), rtol=1e-12, atol=0
    )


def test_a_text_with_every_character_excluded_gets_all():
    texts = np.array([[1, 2, 1, 3, 1], [0, 0, 0, 0, 1]])
    allowed = torch.tensor([False, False, True, True])
    assert ngram_mask(allowed, texts, 2, 4).tolist() == [[False, False, True, True]] * 2
    assert ngram_mask(None, texts, 2, 4).tolist() == [[True, True, False, False], [True] * 4]
    assert ngram_mask(None, texts, 9, 4).all()
