"""LSTM and MinGRU: parallel and stepped computation, gradients, parameters, budgets."""

import pytest
import torch
from torch import nn

from charrnn import GRUEncode, GRUResize, InputError
from charrnn.models import LSTM, MinGRU
from charrnn.models.budget import largest_hidden_size
from charrnn.models.scan import Scan
from charrnn.models.state import leaves

kinds = pytest.mark.parametrize("kind", [LSTM, MinGRU], ids=lambda k: k.__name__)


def loop(a, b, h):
    steps = []
    for a_t, b_t in zip(a, b):
        h = a_t * h + b_t
        steps.append(h)
    return torch.stack(steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 64, 100])
def test_the_scan_is_the_loop(steps):
    """Values and all gradients, also where factors are close to 0 and to 1."""
    torch.manual_seed(steps)
    a = torch.sigmoid(torch.randn(steps, 3, 5).double() * 9)
    found = [
        x.clone().requires_grad_() for x in (a, torch.randn_like(a), torch.randn(3, 5).double())
    ]
    expected = [x.detach().clone().requires_grad_() for x in found]
    weights = torch.randn_like(a)
    results = []
    for function, arguments in ((Scan.apply, found), (loop, expected)):
        results.append(function(*arguments))
        (results[-1] * weights).sum().backward()
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    for x, y in zip(found, expected):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-9)


@kinds
@pytest.mark.parametrize("layers", [1, 3])
def test_a_window_is_its_steps(kind, layers):
    """Logits, activations and final state, to 1e-9 in float64, from a carry that is not zero."""
    torch.manual_seed(0)
    model = kind(11, 7, layers, dropout=0.3).double().eval()
    inputs = torch.randint(0, 11, (101, 4))
    _, state = model(inputs[:1], model.initial_state(4))
    logits, final = model(inputs[1:], state)
    activations = model.activations(inputs[1:], state)
    assert activations.shape == (layers, 100, 4, 7)
    for t, index in enumerate(inputs[1:]):
        step, state = model(index[None], state)
        torch.testing.assert_close(step[0], logits[t], rtol=0, atol=1e-9)
        torch.testing.assert_close(leaves(state)[0], activations[:, t], rtol=0, atol=1e-9)
    for x, y in zip(leaves(state), leaves(final)):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-9)


def test_min_gru_is_the_equation():
    """Equations of Feng et al. 2024, for one layer and one step."""
    model = MinGRU(11, 5, 1).double()
    h, x = torch.randn(2, 5).double()
    weight, bias = model.layers[0].weight, model.layers[0].bias
    for i in range(11):
        x = model.embed.weight[i]
        z = torch.sigmoid(weight[:5] @ x + bias[:5])
        n = weight[5:] @ x + bias[5:]
        n = torch.where(n >= 0, n + 0.5, torch.sigmoid(n))
        _, state = model(torch.tensor([[i]]), h[None, None])
        torch.testing.assert_close(state[0, 0], (1 - z) * h + z * n)


@kinds
def test_dropout_never_acts_along_time(kind):
    """In training, states of a layer below the first dropout are those without it."""
    torch.manual_seed(0)
    model = kind(11, 64, 2, dropout=0.5)
    inputs = torch.randint(0, 11, (20, 2))
    state = model.initial_state(2)
    dropped = [leaves(model(inputs, state)[1]) for _ in range(2)]
    assert dropped[0][0][0].equal(dropped[1][0][0]) and not dropped[0][0][1].equal(dropped[1][0][1])
    model.eval()
    assert model(inputs, state)[0].equal(model(inputs, state)[0])


@pytest.mark.parametrize("kind", [LSTM, MinGRU, GRUEncode, GRUResize], ids=lambda k: k.__name__)
@pytest.mark.parametrize("budget", [600, 12_345, 250_000])
def test_equal_budgets(kind, budget):
    size = largest_hidden_size(kind, budget, 23, num_layers=2)

    def count(hidden_size):
        with torch.device("meta"):
            return sum(p.numel() for p in kind(23, hidden_size).parameters())

    assert count(size) <= budget < count(size + 1)


def test_budgets_that_cannot_be():
    with pytest.raises(InputError, match="parameters=20 must be at least"):
        largest_hidden_size(LSTM, 20, 23)
    with pytest.raises(InputError, match="Linear takes no hidden_size"):
        largest_hidden_size(nn.Linear, 20, 23)


@kinds
@pytest.mark.parametrize(
    "setting", [{"hidden_size": 0}, {"num_layers": 0}, {"dropout": 1.0}], ids=str
)
def test_settings_out_of_range(kind, setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        kind(11, **setting)
