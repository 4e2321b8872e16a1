"""logger=: each by itself and several, what they write, and the lines that name it."""

import csv
import importlib.util
import re
import sys

import pytest
from helpers import TEXT, TINY, metrics
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from runs_in_process import settings, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import charrnn
from charrnn import InputError
from charrnn.cli.overrides import to_hydra


def run(folder, logger, capsys, **changes):
    """Train with ``logger=`` and return what was printed after the last validation."""
    trained(settings(folder, f"logger={logger}"), folder / "run", changes)
    assert any(row["val/loss"] for row in metrics(folder / "run"))
    return capsys.readouterr().out.rpartition("curves ")[2].splitlines()


def test_none(tmp_path, capsys):
    (line,) = run(tmp_path, "none", capsys)
    assert line.endswith("run/metrics.csv")
    assert {f.name for f in (tmp_path / "run").iterdir()} == {
        ".hydra", "checkpoints", "metrics.csv"
    }  # fmt: skip


def test_several(tmp_path, capsys):
    first, second = run(tmp_path, "[tensorboard,csv]", capsys)
    assert first.strip() == f"charrnn tensorboard {tmp_path / 'run'}"
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert "val/bpc" in events.Tags()["scalars"]
    with open(second.strip(), newline="") as f:
        losses = [row["val/loss"] for row in csv.DictReader(f) if row["val/loss"]]
    assert losses == [row["val/loss"] for row in metrics(tmp_path / "run") if row["val/loss"]]
    assert "hidden_size: 8" in (tmp_path / "run/csv/version_0/hparams.yaml").read_text()


def test_wandb_without_a_server(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    changes = {"logger.wandb.offline": True}
    (line,) = run(tmp_path, "wandb", capsys, **changes)
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert line.strip() == f"wandb sync {folder}" and list(folder.glob("*.wandb"))
    # A run that goes on continues the run of W&B, in a folder with the same id.
    changes |= {"resume": str(tmp_path / "run/checkpoints/last.ckpt"), "trainer.max_epochs": 2}
    (line,) = run(tmp_path, "wandb", capsys, **changes)
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert line.strip() == f"wandb sync {' '.join(map(str, folders))}"
    assert len({f.name.rpartition("-")[2] for f in folders}) == 1 and folder in folders
    # Nothing is left to train: no third folder. And an error ends the run of W&B with the run.
    assert run(tmp_path, "wandb", capsys, **changes) == [line]
    assert sorted((tmp_path / "run" / "wandb").glob("offline-run-*")) == folders
    stop = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "unknown"}
    with pytest.raises(RuntimeError, match="unknown"):
        run(
            tmp_path, "wandb", capsys, **changes | {"trainer.max_epochs": 3, "callbacks.stop": stop}
        )
    assert sys.modules["wandb"].run is None


def test_mlflow_in_files(tmp_path, capsys):
    (line,) = run(tmp_path, "mlflow", capsys, **{"logger.mlflow.save_dir": None})
    assert line.endswith(f"mlflow ui --backend-store-uri {tmp_path / 'run' / 'mlruns'}")
    (file,) = (tmp_path / "run" / "mlruns").glob("*/*/metrics/val/loss")
    values = [float(text.split()[1]) for text in file.read_text().splitlines()]
    losses = [float(row["val/loss"]) for row in metrics(tmp_path / "run") if row["val/loss"]]
    assert values == pytest.approx(losses)


class Own(Logger):
    """What Lightning asks of a logger, and no more: it has no ``experiment``."""

    name, version, rows = "own", 0, []

    def log_hyperparams(self, params, *args, **kwargs):
        self.rows.append(params)

    def log_metrics(self, numbers, step=None):
        self.rows.append(step)
        if step == 4:
            raise ConnectionError("no server")


def test_one_of_the_user(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "own_logger", sys.modules[__name__])
    config = settings(tmp_path, "allow_targets=[own_logger]")
    trained(config, tmp_path / "run", {"logger.own": {"_target_": "own_logger.Own"}})
    assert Own.rows[0]["model"]["hidden_size"] == 8 and {0, 2, 4, 6} <= {*Own.rows[1:]}
    line = "Own: cannot be written (no server); its curves have a gap from window 4 on"
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_one_that_is_not_installed(tmp_path, monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module: None if module == name else find(module)
    )
    config = settings(tmp_path, f"logger={name}")
    message = re.escape(f'logger.{name}: {name} is not installed; pip install "charrnn[{name}]"')
    with pytest.raises(InputError, match=message):
        trained(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_of_a_run_of_0_1(tmp_path):
    """There ``logger`` is one logger."""
    config = settings(tmp_path)
    node = {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "name": "tensorboard"}
    found = trained(config, tmp_path / "run", {"logger": node | {"version": ""}})
    assert isinstance(found.trainer.logger, TensorBoardLogger)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_another_logger_for_a_run_that_goes_on(tmp_path, invoke, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = charrnn.train(
        text=TEXT, folder="run", overrides=TINY, max_epochs=1, limit_train_batches=3
    )
    run.train(max_epochs=2, logger="csv")
    assert capfd.readouterr().out.endswith("curves           run/csv/version_0/metrics.csv\n")
    result = invoke("train", "logger=tensorbord", cwd=tmp_path)
    assert result.code == 2 and "logger=tensorbord: no such option" in result.err, result.err


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("logger=csv", "[csv]"),
        ("logger=null", "[none]"),
        ("logger=false", "[none]"),
        ("logger=", "[none]"),
        ("logger=[]", "[none]"),
        ("logger=tensorboard,csv", "[tensorboard,csv]"),
        ("logger=[tensorboard, csv]", "[tensorboard,csv]"),
        ("logger=['tensorboard','csv']", "[tensorboard,csv]"),
        ("logger='wandb'", "[wandb]"),
    ],
)
def test_forms(typed, read):
    assert to_hydra(typed) == f"logger={read}"
