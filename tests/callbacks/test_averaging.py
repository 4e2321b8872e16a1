"""StochasticWeightAveraging: what is averaged, saved, validated and resumed."""

import signal
import sys

import pytest
import torch
from helpers import load, metrics, same, state
from pytorch_lightning import Callback
from pytorch_lightning import callbacks as of_lightning
from runs_in_process import WINDOWS, settings, trained
from torch import nn

import charrnn
from charrnn import InputError, checkpoint
from charrnn.callbacks.averaging import CURRENT
from charrnn.evaluation.static import evaluate

AVERAGED = {
    "callbacks.swa": {
        "_target_": "pytorch_lightning.callbacks.StochasticWeightAveraging",
        "swa_lrs": 0.02, "swa_epoch_start": 2, "annealing_epochs": 2,
    },
    "trainer.max_epochs": 4,
}  # fmt: skip
"""In rounds 2, 3 and 4."""


class Interrupts(Callback):
    """Ctrl-C in a window."""

    def __init__(self, window: int):
        self.window = window

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if trainer.global_step == self.window:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return settings(tmp_path_factory.mktemp("averaging"), "allow_targets=[runs_of_averaging]")


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run of four rounds, with every window's weights in a checkpoint."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return trained(config, folder, AVERAGED)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "runs_of_averaging", sys.modules[__name__])


def last(folder):
    return load(folder / "checkpoints" / "last.ckpt")


def mean_of_rounds(folder, rounds):
    """The average of the weights with which rounds begin, from the checkpoints of rounds."""
    every = [load(folder / f"checkpoints/round_{i:04d}.ckpt")["state_dict"] for i in rounds]
    return {name: torch.stack([w[name] for w in every]).mean(0) for name in every[0]}


def test_the_last_checkpoint_has_the_average(whole, capsys):
    folder = whole.job.folder
    expected = mean_of_rounds(folder, (1, 2, 3))
    saved = last(folder)
    for name, value in expected.items():
        torch.testing.assert_close(saved["state_dict"][name], value, rtol=1e-6, atol=1e-7)
        assert not torch.equal(saved[CURRENT][name], value)
        assert torch.equal(whole.task.state_dict()[name], saved["state_dict"][name])
    loaded = charrnn.load(folder).model.state_dict()
    assert torch.equal(loaded["decoder.weight"], saved["state_dict"]["model.decoder.weight"])


def test_the_average_is_validated(whole):
    folder = whole.job.folder
    model, _ = checkpoint.build_model(last(folder))
    nats = evaluate(model, whole.data.validation).nats
    assert whole.task.validations[-1] == [4 * WINDOWS, pytest.approx(nats, rel=1e-6)]
    assert len(whole.task.validations) == 5  # one for each round, and the untrained
    assert float(metrics(folder)[-1]["val/loss"]) == pytest.approx(nats, rel=1e-6)
    best = load(folder / "checkpoints/best.ckpt")["charrnn"]["windows"]
    assert best == min(whole.task.validations, key=lambda v: v[1])[0]


def test_the_learning_rate_is_that_of_the_averaging(whole):
    rates = {int(row["step"]): row["train/lr"] for row in metrics(whole.job.folder)}
    found = [float(rates[WINDOWS * n + 2]) for n in range(4)]
    begin = found[1]  # after the first round's validation, by scheduler=adaptive
    assert found == pytest.approx([0.001, begin, (begin + 0.02) / 2, 0.02]) and begin < 0.001


def interrupted(config, folder, changes, window):
    changes = changes | {"callbacks.stop": {"_target_": "runs_of_averaging.Interrupts"}}
    changes["callbacks.stop"]["window"] = window
    with pytest.raises(SystemExit):
        trained(config, folder, changes)


MORE = {
    "float64": ("trainer.precision=64-true", "model.backend=torch"),
    "cosine": ("scheduler=cosine", "scheduler.warmup_steps=3"),  # at each window
    "plateau": ("scheduler=plateau", "optimizer=adamw", "model=lstm"),
}
"""Other runs than that of :func:`whole`."""


@pytest.mark.parametrize(
    ("window", "more"),
    [
        (WINDOWS - 2, None),
        (WINDOWS, None),  # the average begins with the next window
        (WINDOWS + 2, None),
        (3 * WINDOWS, None),
        (4 * WINDOWS - 1, None),
        (3 * WINDOWS - 1, "float64"),
        (2 * WINDOWS + 1, "cosine"),
        (2 * WINDOWS, "plateau"),
    ],
)
def test_an_interrupted_run_gives_the_same_average(config, whole, tmp_path, window, more):
    expected, parts = whole.job.folder, tmp_path / "parts"
    if more:
        config = settings(tmp_path, "allow_targets=[runs_of_averaging]", *MORE[more])
        expected = tmp_path / "whole"
        trained(config, expected, AVERAGED)
    interrupted(config, parts, AVERAGED, window)
    assert last(parts)["charrnn"]["windows"] == window
    trained(config, parts, AVERAGED | {"resume": str(parts / "checkpoints" / "last.ckpt")})
    before, after = last(expected), last(parts)
    swa = "StochasticWeightAveraging"
    assert same(before["callbacks"][swa], after["callbacks"][swa])
    for part in ("state_dict", CURRENT, "optimizer_states"):
        assert same(before[part], after[part]), part
    assert state(expected)["validations"] == state(parts)["validations"]
    if more == "float64":
        assert after["state_dict"]["model.decoder.weight"].dtype == torch.float64


def test_a_longer_run_goes_on_with_the_trained_weights(config, whole, tmp_path):
    parts = tmp_path / "parts"
    for rounds in (1, 3, 4):  # before the averaging, and twice while it is on
        resume = {"resume": str(parts / "checkpoints/last.ckpt")} if rounds > 1 else {}
        trained(config, parts, AVERAGED | {"trainer.max_epochs": rounds} | resume)
    before, after = last(whole.job.folder), last(parts)
    for part in ("state_dict", CURRENT, "optimizer_states"):
        assert same(before[part], after[part]), part


def test_a_run_that_ends_before_its_last_round(config, tmp_path):
    """Lightning leaves the trained weights there."""
    changes = AVERAGED | {"trainer.max_steps": 3 * WINDOWS - 2}
    trained(config, tmp_path / "run", changes)
    expected = mean_of_rounds(tmp_path / "run", (1, 2))
    torch.testing.assert_close(last(tmp_path / "run")["state_dict"], expected)


def test_a_run_that_ends_before_the_averaging(config, tmp_path, capsys):
    run = trained(config, tmp_path / "run", AVERAGED | {"trainer.max_epochs": 1})
    assert "begins with round 2, which this run has not reached" in capsys.readouterr().out
    saved = last(tmp_path / "run")
    assert CURRENT not in saved and same(saved["state_dict"], run.task.state_dict())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"swa_lrs": 1}, "callbacks.swa.*positive float"),
        ({"swa_epoch_start": 0}, "swa_epoch_start should be"),
        ({"annealing_strategy": "x"}, "annealing_strategy=x must be cos or linear"),
        ({"annealing_epochs": -1}, "anneal_epochs must be"),
    ],
)
def test_wrong_arguments(config, tmp_path, changes, line):
    wrong = {"callbacks.swa": AVERAGED["callbacks.swa"] | changes}
    with pytest.raises(InputError, match=line):
        trained(config, tmp_path / "run", wrong)
    assert not (tmp_path / "run").exists()


def test_a_share_of_rounds_without_a_number_of_them(config, tmp_path):
    changes = {"callbacks.swa": AVERAGED["callbacks.swa"] | {"swa_epoch_start": 0.5}}
    with pytest.raises(InputError, match="must be a round where"):
        trained(config, tmp_path / "run", changes | {"trainer.max_epochs": -1,
                                                     "trainer.max_steps": 3})  # fmt: skip


def test_models_with_batch_norm_and_subclasses_are_refused(config, tmp_path):
    made = charrnn.callbacks.StochasticWeightAveraging(swa_lrs=0.1)
    with pytest.raises(InputError, match="BatchNorm"):
        made.verify(None, nn.Sequential(nn.BatchNorm1d(3)))
    changes = {"callbacks.swa": {"_target_": "runs_of_averaging.Subclass", "swa_lrs": 0.1}}
    with pytest.raises(InputError, match=r"callbacks\.swa: .*charrnn\.callbacks"):
        trained(config, tmp_path / "run", changes)


class Subclass(of_lightning.StochasticWeightAveraging):
    pass


def test_lightning_has_the_private_names():
    made = of_lightning.StochasticWeightAveraging(swa_lrs=0.1)
    made.setup(type("Trainer", (), {"strategy": None})(), nn.Linear(1, 1), "fit")
    names = ("_swa_lrs", "_swa_epoch_start", "_annealing_epochs", "_annealing_strategy",
             "_scheduler_state", "_average_model")  # fmt: skip
    assert vars(made).keys() >= set(names)
