"""Dynamic evaluation against a slow reference; the model is not changed."""

import copy
import itertools
import math

import pytest
import torch

from charrnn import GRUEncode, GRUResize
from charrnn.data.windows import EvaluationWindows
from charrnn.evaluation.dynamic import (
    EPSILON,
    evaluate_dynamic,
    mean_squared_gradients,
    search_settings,
)
from charrnn.evaluation.static import evaluate

T, V = 7, 11


@pytest.fixture(params=[GRUEncode, GRUResize], ids=lambda k: k.__name__)
def model(request):
    torch.manual_seed(0)
    return request.param(V, 5, 2).double().eval()


def random_text(N, seed=1):
    return torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(seed))


def segment_loss(model, rows, state):
    """Sum of nats, number of targets and final state of rows, one character at a time."""
    total, count, states = 0.0, 0, []
    for row, characters in enumerate(rows):
        h = state[:, row : row + 1]
        for now, then in itertools.pairwise(characters):
            logits, h = model(now.view(1, 1), h)
            total, count = total - logits[0, 0].log_softmax(0)[then], count + 1
        states.append(h)
    return total, count, torch.cat(states, 1)


def slow_dynamic(model, indices, begin, R, lr, decay, squares=None):
    """Total nats of indices from begin on, for R rows without burn-in."""
    model = copy.deepcopy(model)
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    size = -(-(len(indices) - begin) // (R * T)) * T
    rows = [indices[begin - 1 + i * size : begin + (i + 1) * size] for i in range(R)]
    state, total = model.initial_state(R), 0.0
    for start in range(0, size, T):
        parts = [row[start : start + T + 1] for row in rows]
        loss, count, state = segment_loss(model, parts, state.detach())
        total += loss.item()
        model.zero_grad()
        (loss / count).backward()
        rms = squares and {name: s.sqrt() for name, s in squares.items()}
        mean = rms and sum(s.sum() for s in rms.values()) / sum(s.numel() for s in rms.values())
        with torch.no_grad():
            for name, p in model.named_parameters():
                pull, step = decay, lr * p.grad
                if rms:
                    pull = torch.minimum(decay * rms[name] / mean, torch.ones(()))
                    step = step / (rms[name] + EPSILON)
                p.copy_(p + pull * (trained[name] - p) - step)
    return total


@pytest.mark.parametrize("R", [1, 3])
@pytest.mark.parametrize(("lr", "decay"), [(0.3, 0.0), (0.3, 0.02), (0.1, 0.6)])
@pytest.mark.parametrize("form", ["sgd", "rms"])
def test_dynamic_evaluation_against_the_slow_reference(model, form, lr, decay, R):
    indices, begin = random_text(100), 12
    squares = None
    if form == "rms":
        lr /= 100
        squares = mean_squared_gradients(model, random_text(400, 2), T, rows=4)
    before = copy.deepcopy(model.state_dict())
    windows = EvaluationWindows(indices, T, begin, rows=R, burn_in=0)
    found = evaluate_dynamic(model, windows, lr, decay, squares)
    named = squares and {n: s for (n, _), s in zip(model.named_parameters(), squares)}
    assert found.total == pytest.approx(
        slow_dynamic(model, indices, begin, R, lr, decay, named), abs=1e-9
    )
    assert found.characters == 100 - begin
    # The updates changed the result, and the model is as before.
    assert abs(found.total - evaluate(model, windows).total) > 1e-3
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("form", ["sgd", "rms"])
def test_a_learning_rate_of_0_is_static_evaluation(model, form):
    indices = random_text(300)
    squares = mean_squared_gradients(model, indices, T, rows=4) if form == "rms" else None
    windows = EvaluationWindows(indices, T, 200, rows=1, burn_in=50)
    static = evaluate(model, windows)
    found = evaluate_dynamic(model, windows, 0.0, 0.5, squares)
    assert found.report() == pytest.approx(static.report(), abs=1e-12)
    assert (found.unknown, found.correct) == (static.unknown, static.correct)


def test_mean_squared_gradients_of_consecutive_windows(model):
    indices, R, windows = random_text(60), 2, 3
    state, sums = model.initial_state(R), [0.0] * len(list(model.parameters()))
    size = math.ceil(60 / T / R) * T  # the second row wraps around
    for start in range(0, windows * T, T):
        positions = [[(i * size + start + t) % 60 for t in range(T + 1)] for i in range(R)]
        loss, count, state = segment_loss(model, indices[torch.tensor(positions)], state.detach())
        gradients = torch.autograd.grad(loss / count, list(model.parameters()))
        sums = [total + g**2 for total, g in zip(sums, gradients)]
    found = mean_squared_gradients(model, indices, T, R, windows)
    for a, b in zip(found, sums):
        torch.testing.assert_close(a, b / windows, rtol=1e-9, atol=1e-15)


def test_a_repeated_text_is_learned(model):
    """A repeated random text, which the model has never seen."""
    indices = random_text(40).repeat(50)
    windows = EvaluationWindows(indices, 20, rows=1)
    static = evaluate(model, windows).nats
    assert static == pytest.approx(math.log(V), rel=0.1)
    assert evaluate_dynamic(model, windows, 1.0).nats < static - 0.1


def test_a_learning_rate_far_too_high(model):
    windows = EvaluationWindows(random_text(300), T, rows=1)
    assert not math.isfinite(evaluate_dynamic(model.float(), windows, 1e30).total)


def test_search_finds_the_lowest_loss():
    def loss(lr, decay):
        return (lr - 3 - decay) ** 2 + 2 * (decay - 1) ** 2

    lr, decay, tried = search_settings(loss, (0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3))
    assert (lr, decay) == (4, 1) and min(tried, key=lambda t: t[2])[:2] == (lr, decay)
    assert [t[0] for t in tried if t[1] == 0] == [0, 1, 2, 3, 4, 5]  # not the higher ones
    assert len({t[:2] for t in tried}) == len(tried)
