"""Layers in float16 from float32 to float32, as on a GPU; here by the halves of a CPU.

T time steps, B rows, H hidden size, L layers.
"""

from types import SimpleNamespace

import pytest
import torch
from gru.test_cuda import H100, KINDS, case, numbers

import charrnn.gru.torch as backend
from charrnn.gru import halves, reference
from charrnn.gru.cuda import plan

TOLERANCE = 4e-3


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(backend, "takes_halves", lambda state: True)


def relative(found, expected):
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, expected))


@pytest.mark.parametrize("scale", [1e-9, 1, 1e9])
@pytest.mark.parametrize("kind", KINDS)
def test_results_and_gradients(kind, scale):
    """Of any size: gradients that a half cannot hold are brought into its range."""
    given = case(kind, 33, 5, 3, 2)
    found = numbers(backend, "cpu", torch.float32, given, "after", "sigmoid", scale)
    expected = numbers(reference, "cpu", torch.float64, given, "after", "sigmoid", scale)
    assert all(t.dtype == torch.float32 for t in found)
    assert relative(found, expected) < TOLERANCE


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_is_seen(bad):
    """As a GradScaler needs it: in every parameter."""
    given = case("one_hot", 32, 2, 3, 1)
    given[-1][0][1, 2, 3] = bad
    found = numbers(backend, "cpu", torch.float32, given, "after", "sigmoid")
    assert not any(g.isfinite().any() for g in found[3:])


@pytest.mark.parametrize("value", [0.0, 1e-42, 1e-20, 0.3, 1.0, 7.0, 3e38])
@pytest.mark.parametrize("rows", [1, 2048, 2049, 100_000])
def test_powers_of_two(value, rows):
    up, down = halves.powers(torch.tensor(value), rows).tolist()
    assert up * down == 1
    if 1e-20 <= value <= 1e20:
        assert 0.25 < up * value / min(1, 2**11 / rows) < 2.001


def test_sums_over_many_rows_stay_in_range():
    """All rows pull in one direction, as hard as they can."""
    torch.manual_seed(0)
    weights = [tuple(torch.ones(s) * 0.02 for s in ((96, 4), (96, 32), (96,), (96,)))]
    weights = [tuple(w.requires_grad_() for w in weights[0])]
    given = (torch.ones(10, 3000, 4), None, torch.zeros(1, 3000, 32), weights)
    outputs, _ = backend.forward(*given, reset="after", gate="sigmoid")
    grads = torch.autograd.grad(outputs.sum(), weights[0])
    assert all(g.isfinite().all() for g in grads)


def test_only_the_final_state_has_a_gradient():
    inputs, _, state, weights, (_, grad) = case("one_hot", 32, 4, 3, 1)
    found = []
    for kind, dtype in ((backend, torch.float32), (reference, torch.float64)):
        layers = [tuple(w.to(dtype).requires_grad_() for w in layer) for layer in weights]
        given = (inputs, None, state.to(dtype), layers)
        _, final = kind.forward(*given, reset="after", gate="sigmoid")
        found.append(torch.autograd.grad(final, layers[0], grad.to(dtype)))
    assert relative(*found) < TOLERANCE


def test_only_large_layers_on_a_gpu_under_autocast(monkeypatch):
    monkeypatch.undo()
    state = torch.empty(2, 16, 1025, device="meta")
    assert not backend.takes_halves(state)
    gpu = SimpleNamespace(is_cuda=True, dtype=state.dtype, size=state.size)
    assert not backend.takes_halves(gpu)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: device_type == "cuda")
    assert backend.takes_halves(gpu)
    assert not backend.takes_halves(SimpleNamespace(**vars(gpu) | {"size": state[..., 1:].size}))
    assert not backend.takes_halves(SimpleNamespace(**vars(gpu) | {"dtype": torch.float64}))


def test_which_sizes_auto_leaves_to_cudnn_under_autocast():
    for rows in (16, 64, 256, None):
        assert "float16" in plan.why_not_auto(2048, rows, H100, True)
        assert plan.why_not_auto(1024, rows, H100, True) is None
    assert plan.why_not_auto(2048, 64, H100, False) is None
