"""Divergence: losses that are not finite, and spikes above the running mean, end a training."""

import math

import pytest
import torch
from helpers import TEXT, fit

from charrnn import Charset, GRUEncode, InputError
from charrnn.errors import Diverged
from charrnn.training.divergence import DivergenceMonitor, has_finite_parameters

SHORT = TEXT[:500]
DATA = {"batch_size": 3, "seq_len": 7}


def make_model(kind=GRUEncode):
    torch.manual_seed(0)
    return kind(len(Charset.from_text(SHORT)), 5, 1, backend="torch")


def test_monitor_reports_the_largest_spike_once():
    monitor = DivergenceMonitor(spike_factor=2.0)
    for loss in (1.0, 3.0, 1.0):
        monitor.update(torch.tensor(loss))
    assert monitor.describe(torch.tensor(1.0)) == "the loss is 3 times its running mean"
    assert monitor.describe(torch.tensor(1.0)) == ""
    assert monitor.mean_loss.item() == pytest.approx(1 + 0.01 * 2 - 0.01 * 0.02)


def test_monitor_without_spikes_only_checks_that_losses_are_finite():
    monitor = DivergenceMonitor()
    monitor.update(torch.tensor(100.0))
    assert monitor.mean_loss is None and monitor.describe(torch.tensor(100.0)) == ""
    assert monitor.describe(torch.tensor(math.nan)) == "the loss is nan"


def test_has_finite_parameters():
    model = torch.nn.Linear(2, 2)
    assert has_finite_parameters(model)
    model.bias.data[1] = math.inf
    assert not has_finite_parameters(model)


class Diverging(GRUEncode):
    """Its loss is finite up to the third window of training."""

    windows, value = 0, math.nan

    def loss(self, inputs, targets, state):
        self.windows += 1
        loss, state = super().loss(inputs, targets, state)
        return loss * (self.value if self.windows == 3 else 1.0), state


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_loss_that_is_not_finite_names_its_window(tmp_path, value):
    model = make_model(Diverging)
    model.value = value
    with pytest.raises(InputError, match=rf"the loss is {value} at window 3: .*optimizer\.lr"):
        fit(tmp_path, SHORT, model, data=DATA, max_steps=10)
    assert model.windows == 3
    # Its step was not made.
    assert all(p.isfinite().all() for p in model.parameters())


def test_validation_loss_that_is_not_finite_names_its_window(tmp_path):
    model = make_model()
    nll = model.nll
    model.nll = lambda *a: (nll(*a)[0] * (math.nan if model.has_trained else 1.0), nll(*a)[1])
    model.has_trained = False
    loss = model.loss

    def record(*arguments):
        model.has_trained = True
        return loss(*arguments)

    model.loss = record
    with pytest.raises(InputError, match="the validation loss is nan at window 4"):
        fit(
            tmp_path, SHORT, model, data=DATA,
            max_epochs=1, limit_train_batches=4,
        )  # fmt: skip


class Spiking(GRUEncode):
    factor, windows = 1.0, 0

    def loss(self, *arguments):
        self.windows += 1
        loss, state = super().loss(*arguments)
        return loss * (self.factor if self.windows == 9 else 1.0), state


@pytest.mark.parametrize(("factor", "spikes"), [(1.9, False), (2.5, True)])
def test_spikes_are_relative_to_the_running_mean(tmp_path, factor, spikes):
    model = make_model(Spiking)
    model.factor = factor
    settings = {"task": {"spike_factor": 2.0}, "data": DATA}
    if not spikes:
        task, _ = fit(tmp_path, SHORT, model, max_steps=12, **settings)
        assert 1 < task.monitor.mean_loss.item() < 6
        return
    with pytest.raises(Diverged, match=r"2\.\d+ times its running mean at window 9:") as caught:
        fit(tmp_path, SHORT, model, max_steps=12, **settings)
    assert caught.value.good == 7


@pytest.mark.parametrize(
    "bad",
    [{"on_divergence": "go"}, {"spike_factor": 1.0}, {"rollback_factor": 0}, {"max_rollbacks": -1}],
    ids=str,
)
def test_arguments_out_of_range(tmp_path, bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        fit(tmp_path, SHORT, GRUEncode(5, 5, 1), task=bad)
