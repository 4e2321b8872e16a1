"""Evaluation: every character after the first counts once, and scores are a plain loop's."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from charrnn import GRUEncode, GRUResize
from charrnn.evaluation import PADDING, EvaluationWindows, mean_nats, score


@pytest.mark.parametrize("T", [1, 7, 100])
@pytest.mark.parametrize("N", [2, 3, 100, 225, 3001])
def test_every_character_after_the_first_is_a_target_once(N, T):
    windows = EvaluationWindows(torch.arange(N), T)
    assert len(list(windows)) == len(windows)
    counts = Counter()
    for window in windows:
        assert window.inputs.shape == window.targets.shape == (T, windows.rows)
        real = window.targets != PADDING
        # A target follows its input in the text: none comes from around the circle.
        assert window.targets[real].equal(window.inputs[real] + 1)
        counts.update(window.targets[real].tolist())
    assert counts == Counter(range(1, N))
    assert len(list(windows)) == len(windows)  # again, from the beginning


@pytest.mark.parametrize(("N", "rows"), [(2, 1), (223, 1), (224, 2), (7168, 64), (90000, 64)])
def test_rows_are_long(N, rows):
    windows = EvaluationWindows(torch.arange(N), 7)
    assert windows.rows == rows and (rows == 1 or len(windows) >= 16)


def test_rows_go_on_from_window_to_window():
    windows = list(EvaluationWindows(torch.arange(500), 7))
    for before, after in itertools.pairwise(windows):
        real = before.targets[-1] != PADDING
        assert before.targets[-1][real].equal(after.inputs[0][real])


@pytest.fixture(params=[GRUEncode, GRUResize], ids=lambda k: k.__name__)
def model(request):
    torch.manual_seed(0)
    return request.param(11, 5, 3).double().eval()


def plain_scores(model, indices):
    """One character at a time."""
    state, nats = model.initial_state(1), []
    for now, then in itertools.pairwise(indices):
        logits, state = model(now.view(1, 1), state)
        nats.append(-logits[0, 0].log_softmax(0)[then].item())
    return np.array(nats)


@pytest.mark.parametrize("N", [2, 3, 100])
@pytest.mark.parametrize("seq_len", [1, 7, 99, 1000])
def test_scores_are_a_plain_loop_s_whatever_is_read_at_once(model, N, seq_len):
    indices = torch.randint(0, 11, (N,), generator=torch.Generator().manual_seed(1))
    found = score(model, indices, seq_len)
    assert found.shape == (N - 1,) and found.dtype == np.float64
    np.testing.assert_allclose(found, plain_scores(model, indices), rtol=0, atol=1e-12)


@pytest.mark.parametrize("N", [0, 1])
def test_nothing_to_score(model, N):
    assert score(model, torch.zeros(N, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("N", [2, 8, 200])
def test_the_mean_over_an_evaluation_is_that_of_a_score(model, N):
    """Where all of it is one row."""
    indices = torch.randint(0, 11, (N,), generator=torch.Generator().manual_seed(1))
    found = mean_nats(model, EvaluationWindows(indices, 30))
    assert found == pytest.approx(score(model, indices).mean(), abs=1e-12)
