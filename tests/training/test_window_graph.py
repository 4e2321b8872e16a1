"""A window as a CUDA graph, against the window in its single parts."""

import functools

import pytest
import torch
from helpers import TEXT, fit, same
from pytorch_lightning import Callback

from charrnn import GRUEncode
from charrnn.training import graphs

OPTIMIZERS = {
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=1e-2, alpha=0.95),
    "adam": functools.partial(torch.optim.Adam, lr=1e-2),
    "sgd": functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9),
}
DATA = {"batch_size": 3, "seq_len": 7}
RUN = {
    "accelerator": "gpu", "devices": 1, "max_steps": 40, "log_every_n_steps": 10,
    "gradient_clip_val": 0.05, "gradient_clip_algorithm": "value",
}  # fmt: skip


def trained(folder, graph, optimizer="rmsprop", dropout=0.0, backend="auto", **settings):
    torch.manual_seed(0)
    model = GRUEncode(97, 24, 2, dropout, backend=backend)
    task = {"cuda_graph": graph, "l2": 0.1}
    return fit(folder, TEXT, model, task, DATA, OPTIMIZERS[optimizer], **RUN | settings)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("optimizer", "precision", "backend"),
    [
        *((name, "32-true", "native") for name in OPTIMIZERS),
        ("rmsprop", "bf16-mixed", "native"),
        ("rmsprop", "32-true", "torch"),
    ],
)
def test_a_graph_does_what_its_parts_do(tmp_path, optimizer, precision, backend, capsys):
    found, expected = (
        trained(tmp_path, graph, optimizer, backend=backend, precision=precision)
        for graph in ("auto", "off")
    )
    assert "not a CUDA graph" not in capsys.readouterr().out
    for (_, trainer), uses in ((found, True), (expected, False)):
        loop = trainer.fit_loop.epoch_loop.automatic_optimization
        assert (loop.graph is not None) == uses and trainer.global_step == 40
    tolerance = (
        {"rtol": 1e-2, "atol": 1e-2} if precision == "32-true" else {"rtol": 0.1, "atol": 0.02}
    )
    a, b = found[0], expected[0]
    for x, y in zip(a.model.parameters(), b.model.parameters()):
        torch.testing.assert_close(x, y, **tolerance)
    torch.testing.assert_close(a.carry, b.carry, **tolerance)
    torch.testing.assert_close(a.window_loss, b.window_loss, **tolerance)
    for key, value in b.gradient_stats.items():
        torch.testing.assert_close(a.gradient_stats[key], value, rtol=0.1, atol=1e-3)


@pytest.mark.gpu
def test_the_same_run_twice_has_the_same_bits(tmp_path):
    first, second = (trained(tmp_path, "auto", dropout=0.3)[0] for _ in range(2))
    assert same(first.model.state_dict(), second.model.state_dict())
    assert torch.equal(first.carry, second.carry)


class Listener(Callback):
    def on_after_backward(self, trainer, task):
        pass


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"callbacks": [Listener()]}, "Listener has the hook on_after_backward"),
        ({"precision": "16-mixed"}, "precision=16-mixed"),
    ],
    ids=["hook", "scaler"],
)
def test_why_it_is_none(tmp_path, settings, why, capsys):
    trained(tmp_path, "auto", max_steps=4, **settings)
    said = capsys.readouterr().out
    assert said.count("not a CUDA graph") == 1 and why in said


def test_on_a_cpu_there_is_none(tmp_path, capsys):
    _, trainer = trained(tmp_path, "auto", accelerator="cpu", max_steps=2)
    assert trainer.fit_loop.epoch_loop.automatic_optimization.graph is None
    assert "graph" not in capsys.readouterr().out


def test_optimizers_that_cannot():
    parameters = [torch.nn.Parameter(torch.ones(1))]
    for optimizer in OPTIMIZERS.values():
        assert graphs.unsupported(optimizer(parameters)) is None
    assert "Adagrad" in graphs.unsupported(torch.optim.Adagrad(parameters))
    sgd = torch.optim.SGD(parameters, lr=1.0, momentum=0.9, dampening=0.5)
    assert "dampening" in graphs.unsupported(sgd)
