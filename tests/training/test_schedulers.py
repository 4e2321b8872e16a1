"""Learning rates: the 2016 rule at its thresholds, the cosine's shape, and states that resume."""

import math
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau

from charrnn import InputError
from charrnn.training.schedulers import Adaptive, WarmupCosine, restore_scheduler

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


class OfTask:
    """What restoring a scheduler asks of a task."""

    def __init__(self, make, total):
        self.make_scheduler, self.total = make, total
        self.optimizer = self.make_optimizer([torch.zeros(1, requires_grad=True)])
        takes_total = make.func is OneCycleLR
        self.scheduler = make(self.optimizer, **{"total_steps": total} if takes_total else {})

    def make_optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=LR, momentum=0.9)

    def total_steps(self):
        return self.total

    def rates(self, steps, *loss):
        found = []
        for _ in range(steps):
            self.optimizer.step()
            self.scheduler.step(*loss)
            found.append(rate(self.optimizer))
        return found


def restored(task, saved, make, total):
    after = OfTask(make, total)
    after.optimizer.load_state_dict(saved.optimizer.state_dict())
    arguments = {k: v for k, v in saved.make_scheduler.keywords.items()}
    settings = {"scheduler": {"_target_": "x", "_partial_": True} | arguments}
    state = {"settings": settings, "scheduler": saved.scheduler.state_dict(), "total_steps": task}
    restore_scheduler(after, after.optimizer, state)
    return after


def test_a_schedule_goes_on_to_a_new_end():
    make = partial(OneCycleLR, max_lr=1.0)
    whole, first = OfTask(make, 20), OfTask(make, 10)
    first.rates(9)
    after = restored(10, first, make, 20)
    expected = whole.rates(19)
    assert after.rates(10) == pytest.approx(expected[9:])


@pytest.mark.parametrize(
    ("kind", "before", "now", "loss"),
    [
        (ReduceLROnPlateau, {"patience": 100}, {"patience": 0, "factor": 0.5}, (1.0,)),
        (ExponentialLR, {"gamma": 1.0}, {"gamma": 0.5}, ()),
        (OneCycleLR, {"max_lr": 1.0}, {"max_lr": 2.0}, ()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_changed_argument_has_an_effect_on_resuming(kind, before, now, loss):
    saved = OfTask(partial(kind, **before), 40)
    saved.rates(3, *loss)
    same = restored(40, saved, partial(kind, **before), 40)
    changed = restored(40, saved, partial(kind, **now), 40)
    expected = saved.rates(4, *loss)
    assert same.rates(4, *loss) == expected
    assert changed.rates(4, *loss) != expected
