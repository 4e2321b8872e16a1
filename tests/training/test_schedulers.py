"""Learning rates: the 2016 rule at its thresholds, the cosine's shape, and states that resume."""

import math
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, ReduceLROnPlateau

from charrnn import InputError
from charrnn.training.schedulers import Adaptive, WarmupCosine

LR = 0.125


def make_optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)


def rate(optimizer):
    return optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [
        (0.5, 1.0), (math.nextafter(0.98, 0), 1.0),
        (0.98, 0.8), (1.0, 0.8), (math.nextafter(1.03, 0), 0.8),
        (1.03, 0.5), (2.0, 0.5),
    ],
)  # fmt: skip
def test_adaptive_at_its_thresholds(ratio, factor):
    optimizer = make_optimizer()
    scheduler = Adaptive(optimizer)
    scheduler.step(2.0)
    assert rate(optimizer) == LR  # there is no previous loss
    scheduler.step(2.0 * ratio)
    assert rate(optimizer) == LR * factor


def test_adaptive_compares_with_the_previous_loss():
    optimizer = make_optimizer()
    scheduler = Adaptive(optimizer, worse=0.25, stalled=0.5)
    factors = []
    for loss in (1.0, 2.0, 1.9, 1.9, 0.1, 3.0):
        before = rate(optimizer)
        scheduler.step(loss)
        factors.append(rate(optimizer) / before)
    assert factors == [1, 0.25, 1, 0.5, 1, 0.25]


def test_adaptive_after_a_loss_of_zero():
    """The loss of a text of one letter can be zero."""
    optimizer = make_optimizer()
    scheduler = Adaptive(optimizer)
    for loss in (0.0, 0.0, 1.0):
        scheduler.step(loss)
    assert rate(optimizer) < LR


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_shape(final):
    total, warmup = 40, 10
    optimizer = make_optimizer()
    scheduler = WarmupCosine(optimizer, total, warmup, final)
    rates = []
    for _ in range(total + 5):
        rates.append(rate(optimizer) / LR)
        optimizer.step()
        scheduler.step()
    # Linear from above zero: the first window trains at rates[0].
    assert rates[:warmup] == pytest.approx([(i + 1) / (warmup + 1) for i in range(warmup)])
    assert rates[warmup] == 1
    halfway = (warmup + total) // 2
    assert rates[halfway] == pytest.approx((1 + final) / 2)
    assert rates[warmup:total] == sorted(rates[warmup:total], reverse=True)
    # Half a cosine is symmetric.
    ups = [1 - r for r in rates[warmup : total + 1]]
    downs = [r - final for r in reversed(rates[warmup : total + 1])]
    assert ups == pytest.approx(downs)
    assert rates[total:] == pytest.approx([final] * 5)  # and stays there


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (3, 100), (100, 100), (5, 0)])
def test_cosine_of_short_runs(total, warmup):
    optimizer = make_optimizer()
    scheduler = WarmupCosine(optimizer, total, warmup)
    for _ in range(total):
        assert 0 < rate(optimizer) <= LR
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    "make",
    [
        Adaptive,
        partial(WarmupCosine, total_steps=12, warmup_steps=3),
        partial(ReduceLROnPlateau, factor=0.5, patience=1),
        partial(ConstantLR, factor=1.0),
    ],
    ids=["adaptive", "cosine", "plateau", "constant"],
)
@pytest.mark.parametrize("stop", range(0, 12, 3))
def test_state_resumes(make, stop):
    losses = [3.0, 2.0, 2.0, 2.5, 2.4, 2.4, 2.4, 1.0, 1.02, 1.1, 0.5, 0.7]
    takes_loss = make is Adaptive or make.func is ReduceLROnPlateau

    def run(losses, state=None):
        optimizer = make_optimizer()
        scheduler = make(optimizer)
        if state is not None:
            optimizer.load_state_dict(state[0])
            scheduler.load_state_dict(state[1])
        rates = []
        for loss in losses:
            optimizer.step()
            scheduler.step(*[loss] * takes_loss)
            rates.append(rate(optimizer))
        return rates, (optimizer.state_dict(), scheduler.state_dict())

    whole, _ = run(losses)
    first, state = run(losses[:stop])
    assert first + run(losses[stop:], state)[0] == whole
    if make is not Adaptive and make.func is ConstantLR:
        assert set(whole) == {LR}


@pytest.mark.parametrize("bad", [{"worse": 0}, {"worse": 1.1}, {"stalled": -1}], ids=str)
def test_adaptive_arguments_out_of_range(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        Adaptive(make_optimizer(), **bad)


@pytest.mark.parametrize("bad", [{"warmup_steps": -1}, {"final": 1.5}], ids=str)
def test_cosine_arguments_out_of_range(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        WarmupCosine(make_optimizer(), 10, **bad)
