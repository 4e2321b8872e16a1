"""Callbacks of Lightning as it documents them: each works here, or is refused in one line."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from helpers import load, metrics, same, state
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import BaseFinetuning
from runs_in_process import WINDOWS, settings, trained

from charrnn import InputError
from charrnn.checkpoint import build_model
from charrnn.cli.arguments import resumed
from charrnn.cli.errors import explain
from charrnn.evaluation.static import evaluate

LIGHTNING = "pytorch_lightning.callbacks"
TWO_ROUNDS = {"trainer.max_epochs": 2}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return settings(tmp_path_factory.mktemp("callbacks"), "allow_targets=[runs_of_lightning]")


def with_callback(name, **arguments):
    """Changes that add a callback of Lightning."""
    return {"callbacks.theirs": {"_target_": f"{LIGHTNING}.{name}", **arguments}}


def test_metrics_reach_the_readers_of_log(config, tmp_path):
    found = trained(config, tmp_path / "run").trainer
    row = metrics(tmp_path / "run")[-1]
    for numbers in (found.callback_metrics, found.logged_metrics, found.progress_bar_metrics):
        for name in ("val/loss", "val/bpc", "train/loss", "train/bpc", "train/lr"):
            assert float(numbers[name]) == pytest.approx(float(row[name]))


def test_early_stopping(config, tmp_path, capsys):
    changes = with_callback("EarlyStopping", monitor="val/loss", patience=1, min_delta=100.0)
    run = trained(config, tmp_path / "run", changes | {"trainer.max_epochs": 5})
    assert run.task.rounds == 2
    assert "stopped          in round 2: EarlyStopping of val/loss, whose best is" in (
        capsys.readouterr().out
    )
    assert not run.task.stopped  # which is for pruned jobs of a search


def test_early_stopping_of_an_unknown_number(config, tmp_path):
    with pytest.raises(RuntimeError) as error:  # Lightning's, which lists the known
        trained(config, tmp_path / "run", with_callback("EarlyStopping", monitor="val/los"))
    line = explain(error.value)
    assert line.startswith("callbacks: Early stopping") and "`val/los`" in line
    assert "`val/loss`" in line


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
@pytest.mark.parametrize(
    "when",
    [{"every_n_train_steps": 4}, {"save_on_train_epoch_end": False}, {"every_n_epochs": 1}],
    ids=lambda when: next(iter(when)),
)
def test_model_checkpoint_resumes_exactly(config, tmp_path, when):
    """Its files are between two windows, whenever it saves them."""
    theirs, whole = tmp_path / "theirs", tmp_path / "whole"
    changes = with_callback("ModelCheckpoint", dirpath=str(theirs), save_top_k=-1, **when)
    trained(config, whole, TWO_ROUNDS | changes)
    files = {load(file)["charrnn"]["windows"]: file for file in theirs.glob("*.ckpt")}
    assert sorted(files) == ([4, 8, 12] if "every_n_train_steps" in when else [6, 12])
    before = state(whole)
    for windows in set(files) - {12}:
        resumed = tmp_path / f"from_{windows}"
        trained(config, resumed, TWO_ROUNDS | changes | {"resume": str(files[windows])})
        after = state(resumed)
        for part in ("weights", "optimizer", "carry", "position", "random", "scheduler", "rounds"):
            assert same(before[part], after[part]), (windows, part)
        assert after["validations"] == before["validations"]


def test_ema(config, tmp_path):
    """The last checkpoint has the averaged weights; a run goes on with the others, exactly."""
    changes = with_callback("EMAWeightAveraging", decay=0.5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trained(config, whole, TWO_ROUNDS | changes)
    trained(config, parts, changes)
    resume = {"resume": str(parts / "checkpoints/last.ckpt")}
    run = trained(config, parts, TWO_ROUNDS | changes | resume)
    before, after = (load(run / "checkpoints/last.ckpt") for run in (whole, parts))
    for part in ("state_dict", "current_model_state", "optimizer_states"):
        assert same(before[part], after[part]), part
    nats = evaluate(build_model(after)[0], run.data.validation).nats
    assert run.task.validations[-1][1] == pytest.approx(nats, rel=1e-6)
    name = "model.decoder.weight"
    assert not torch.equal(before["state_dict"][name], before["current_model_state"][name])


def test_learning_rate_monitor_and_device_stats_without_a_logger(config, tmp_path):
    changes = with_callback("LearningRateMonitor", logging_interval="step")
    changes["callbacks.device"] = {"_target_": f"{LIGHTNING}.DeviceStatsMonitor", "cpu_stats": True}
    trained(config, tmp_path / "run", changes)
    rows = metrics(tmp_path / "run")
    assert {row["lr-RMSprop"] for row in rows} >= {"0.001"}
    assert any("cpu_percent" in name for name in rows[0])


def test_timer_and_rich_progress_bar(config, tmp_path, capfd):
    changes = with_callback("Timer", duration="00:01:00:00")
    changes["callbacks.bar"] = {"_target_": f"{LIGHTNING}.RichProgressBar"}
    run = trained(config, tmp_path / "run", changes)
    names = [type(callback).__name__ for callback in run.trainer.callbacks]
    assert "RichProgressBar" in names and "Progress" not in names
    assert run.task.global_step == WINDOWS


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("GradientAccumulationScheduler", {"scheduling": {0: 2}}, "every window is a step"),
        ("LearningRateFinder", {}, "sweep=lr"),
        ("BatchSizeFinder", {}, r"give data\.batch_size"),
        ("SpikeDetection", {}, "task.spike_factor="),
        ("BackboneFinetuning", {}, "BaseFinetuning"),
        ("OnExceptionCheckpoint", {"dirpath": "x"}, r"callbacks\.checkpoint saves"),
        ("BasePredictionWriter", {}, "has no effect"),
    ],
)
def test_refused(config, tmp_path, name, arguments, why):
    with pytest.raises(InputError, match=f"callbacks.theirs: {name} .*{why}"):
        trained(config, tmp_path / "run", with_callback(name, **arguments))
    assert not (tmp_path / "run").exists()


# Callbacks of the user's


OF_MINE = "runs_of_lightning"
"""This module, as a package that allow_targets names."""


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, OF_MINE, sys.modules[__name__])


class Freezes(BaseFinetuning):
    """Trains the decoder from the third round on."""

    def freeze_before_training(self, task):
        self.freeze(task.model.decoder)

    def finetune_function(self, task, epoch, optimizer):
        if epoch == 2:
            self.make_trainable(task.model.decoder)


def test_what_a_callback_froze_stays_so_on_resuming(config, tmp_path, importable):
    changes = {"callbacks.theirs": {"_target_": f"{OF_MINE}.Freezes"}, "trainer.max_epochs": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trained(config, whole, changes)
    first, third = (load(whole / f"checkpoints/round_000{i}.ckpt")["state_dict"] for i in (0, 2))
    assert torch.equal(first["model.decoder.weight"], third["model.decoder.weight"])
    trained(config, parts, changes | {"trainer.max_steps": 3 * WINDOWS - 2})
    trained(config, parts, changes | {"resume": str(parts / "checkpoints/last.ckpt")})
    assert same(state(whole), state(parts))
    assert not torch.equal(
        first["model.decoder.weight"], state(parts)["weights"]["model.decoder.weight"]
    )


class ChangesAtTheEnd(Callback):
    """Changes a weight in a hook that comes after ours."""

    def __init__(self, hook: str):
        setattr(self, hook, self.change)

    def change(self, trainer, task):
        with torch.no_grad():
            task.model.decoder.bias.add_(1.0)


@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end"])
def test_weights_that_change_at_the_end_are_saved(config, tmp_path, importable, hook, monkeypatch):
    changes = {"callbacks.theirs": {"_target_": f"{OF_MINE}.ChangesAtTheEnd", "hook": hook}}
    run = trained(config, tmp_path / "run", changes)
    folder = tmp_path / "run" / "checkpoints"
    last, before = (load(folder / f"{name}.ckpt") for name in ("last", "previous"))
    assert same(last.pop("state_dict"), run.task.state_dict())
    name = "model.decoder.bias"
    assert torch.equal(run.task.state_dict()[name], before.pop("state_dict")[name] + 1)
    assert same(last, before)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("charrnn.callbacks.checkpoint.replace_weights", full)
    with pytest.raises(InputError, match="window 6 cannot be saved"):
        trained(config, tmp_path / "full", changes)


class Logs(Callback):
    """Logs by ``task.log``, at windows and at the end of a round."""

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        task.log("mine/window", float(trainer.global_step))

    def on_train_epoch_end(self, trainer, task):
        task.log("mine/round", 1.0)


def test_what_a_callback_logs_is_in_metrics_csv(config, tmp_path, importable):
    changes = {"callbacks.logs": {"_target_": f"{OF_MINE}.Logs"}}
    trained(config, tmp_path / "run", changes)
    rows = {row["step"]: row for row in metrics(tmp_path / "run")}
    assert [rows[step]["mine/window"] for step in ("2", "4", "6")] == ["2.0", "4.0", "6.0"]
    assert rows["6"]["mine/round"] == "1.0" and rows["6"]["train/loss"]


def test_a_run_whose_time_is_spent(config, tmp_path, capsys):
    changes = {"trainer.max_time": "00:00:00:01", "trainer.max_epochs": -1}
    trained(config, tmp_path / "run", changes)
    capsys.readouterr()
    resume = {"resume": str(tmp_path / "run/checkpoints/last.ckpt")}
    trained(config, tmp_path / "run", changes | resume)
    out = capsys.readouterr().out
    assert "nothing is left to do: its time is spent; give more, as trainer.max_time=" in out


def test_a_timer_that_only_measures(config, tmp_path):
    run = trained(config, tmp_path / "run", with_callback("Timer"))
    assert run.task.global_step == WINDOWS


def test_two_callbacks_of_one_state(config, tmp_path):
    changes = with_callback("ModelCheckpoint")
    with pytest.raises(RuntimeError) as error:
        trained(
            config, tmp_path / "run", changes | {"callbacks.other": changes["callbacks.theirs"]}
        )
    assert explain(error.value).startswith("callbacks: Found more than one stateful callback")


def test_pruning_reaches_every_weight(config, tmp_path, capsys):
    """Those of the input layer too, whose module only holds them; it resumes, inexactly."""
    each = {"pruning_fn": "l1_unstructured", "amount": 0.5, "use_global_unstructured": False}
    changes = with_callback("ModelPruning", **each)
    run = trained(config, tmp_path / "run", changes)
    for part in (run.task.model.embed, run.task.model.decoder):
        assert (part.weight == 0).float().mean() >= 0.5
    resume = {"resume": str(tmp_path / "run/checkpoints/last.ckpt")}
    assert trained(config, tmp_path / "run", changes | TWO_ROUNDS | resume).task.rounds == 2
    assert capsys.readouterr().out.count("no checkpoint holds its masks") == 1


@pytest.mark.parametrize("weights_only", [False, True])
def test_model_checkpoint_alone(config, tmp_path, capsys, weights_only):
    """Its files lie where a run is looked for, and the printed commands name one of them."""
    changes = {"callbacks.checkpoint": None} | with_callback("ModelCheckpoint")
    changes["callbacks.theirs"]["save_weights_only"] = weights_only
    run = trained(config, tmp_path / "run", changes)
    (file,) = (tmp_path / "run" / "checkpoints").glob("*.ckpt")
    out = capsys.readouterr().out
    assert f"sample checkpoint={file}" in out and "no checkpoint was saved" not in out
    assert (f"train resume={file} trainer.max_epochs=2" in out) == (not weights_only)
    if weights_only:
        with pytest.raises(InputError, match="holds a model only; use init_from="):
            resumed(file)
    else:
        run = trained(config, tmp_path / "run", changes | TWO_ROUNDS | {"resume": str(file)})
        assert run.task.global_step == 2 * WINDOWS


class Keeps(Callback):
    """Has a state that no safe checkpoint holds."""

    def state_dict(self):
        return {"where": Path("here"), "by": timedelta(1)}


def test_a_state_that_could_not_be_read_again(config, tmp_path, monkeypatch):
    """It is refused before training, and not found damaged after it."""
    monkeypatch.setitem(sys.modules, "runs_of_lightning", sys.modules[__name__])
    changes = {"callbacks.keeps": {"_target_": "runs_of_lightning.Keeps"}}
    with pytest.raises(InputError, match=r"last\.ckpt: datetime\.timedelta, pathlib.* read"):
        trained(config, tmp_path / "run", changes)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
