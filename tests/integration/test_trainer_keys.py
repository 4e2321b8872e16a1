"""Every key of Lightning's Trainer: what it does here, or the line that refuses it."""

import inspect

import pytest
import torch
from helpers import load, metrics, same, state
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelSummary, ProgressBar
from runs_in_process import WINDOWS, settings, trained

from charrnn import InputError
from charrnn.cli.errors import explain


def windows(count):
    """A check that a run had so many windows."""

    def check(run, folder):
        assert run.task.global_step == count

    return check


def as_ever(run, folder):
    """A check that a run is the ordinary one: its windows, validations and files."""
    assert run.task.global_step == WINDOWS
    assert [w for w, _ in run.task.validations] == [0, WINDOWS]
    assert [row["step"] for row in metrics(folder) if row["train/loss"]] == ["2", "4", "6"]
    assert (folder / "checkpoints" / "last.ckpt").exists()


def unchanged(run, folder):
    """The check of a row that changes nothing of a run: these are run together, in one."""
    as_ever(run, folder)


def validations(*expected):
    """A check of the windows at which a run was validated."""
    return lambda run, folder: [w for w, _ in run.task.validations] == list(expected) or 1 / 0


def nothing_saved(count):
    """A check that fast_dev_run trained so many windows and left nothing but its settings."""

    def check(run, folder):
        assert run.task.global_step == count and len(run.task.validations) == 1
        assert {file.name for file in folder.iterdir()} == {".hydra"}

    return check


def weights_are(dtype):
    """A check of the type of a run's parameters, and that its loss is a number."""

    def check(run, folder):
        as_ever(run, folder)
        assert {p.dtype for p in run.task.parameters()} == {dtype}

    return check


def in_bfloat16(run, folder):
    """On a CPU Lightning takes bf16-mixed, and warns."""
    as_ever(run, folder)
    assert run.trainer.precision == "bf16-mixed"


def measured(run, folder):
    """Ours, and a run that is resumed stays in it."""
    as_ever(run, folder)
    chosen = load(folder / "checkpoints" / "last.ckpt")["charrnn"]["settings"]["trainer"]
    assert run.trainer.precision == chosen["precision"] != "auto"


def overfitted(run, folder):
    """The windows of a pass are those of overfit_batches."""
    assert len(run.data.stream) == 2 and run.task.round_windows == 0
    assert run.data.stream.state_dict()["passes"] == 1


def profiled(run, folder):
    as_ever(run, folder)
    assert "run_training_batch" in (folder / "fit-profile.txt").read_text()


def has_lightnings_checkpoint(run, folder):
    as_ever(run, folder)
    assert list(folder.glob("checkpoints/epoch=0-step=6.ckpt"))


def logged_every(number):
    def check(run, folder):
        steps = [int(row["step"]) for row in metrics(folder) if row["train/loss"]]
        assert steps == list(range(number, WINDOWS + 1, number))

    return check


def has_no_bar(run, folder):
    assert not any(isinstance(c, ProgressBar) for c in run.trainer.callbacks)


def has_summary(run, folder):
    assert any(isinstance(c, ModelSummary) for c in run.trainer.callbacks)


def clipped(run, folder):
    """Nearly all gradients are larger than the bound."""
    assert min(float(r["train/clipped"]) for r in metrics(folder) if r["train/clipped"]) > 0.5


def clipped_by_norm(run, folder):
    """Of which there is no share of elements."""
    assert not any(row["train/clipped"] for row in metrics(folder))


def is_deterministic(run, folder):
    as_ever(run, folder)
    assert torch.are_deterministic_algorithms_enabled()


def is_benchmarked(run, folder):
    assert torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False


def validates_without_inference_mode(run, folder):
    assert not run.trainer.validate_loop.inference_mode


DDP = {"_target_": "pytorch_lightning.strategies.DDPStrategy"}
TABLE = {
    "accelerator": [("cpu", unchanged), ("gpu", "trainer")],
    "strategy": [
        ("auto", unchanged), ("fsdp", "trainer.strategy=fsdp must be auto, ddp"),
        (DDP | {"precision_plugin": None}, "precision_plugin: is set by trainer.precision="),
        (DDP | {"buckets": 1}, "trainer.strategy.buckets: nothing reads this key"),
        (DDP | {"process_group_backend": "x"}, "process_group_backend=x must be gloo or nccl"),
    ],
    "devices": [(1, unchanged), ([7], "trainer")],
    "num_nodes": [(1, unchanged), (2, "trainer.num_nodes=2 must be 1, unless torchrun")],
    "precision": [
        ("32-true", weights_are(torch.float32)),
        ("64-true", weights_are(torch.float64)),
        ("bf16-mixed", weights_are(torch.float32)),
        ("bf16-true", weights_are(torch.bfloat16)),
        ("16-mixed", in_bfloat16),
        ("auto", measured),
        ("16-true", "trainer.precision=16-true"),
        ("transformer-engine", "trainer: .*transformer_engine"),
    ],
    "logger": [(False, "trainer.logger: is set by logger=")],
    "callbacks": [([], "trainer.callbacks: is set by callbacks.NAME._target_=")],
    "fast_dev_run": [(False, unchanged), (True, nothing_saved(1)), (3, nothing_saved(3))],
    "max_epochs": [(2, windows(2 * WINDOWS)), (0, "trainer.max_epochs=0 must be")],
    "min_epochs": [(1, unchanged)],
    "max_steps": [(4, windows(4)), (0, "trainer.max_steps=0 must be")],
    "min_steps": [(1, unchanged)],
    "max_time": [("00:00:00:00", windows(0)), ("00:01:00:00", unchanged), ("soon", "max_time")],
    "limit_train_batches": [(3, windows(3)), (None, windows(277)),
                            (0.1, windows(27)), (0, "limit_train_batches=0")],
    "limit_val_batches": [(0, validations()), (1, as_ever), (-1, "limit_val_batches=-1")],
    "limit_test_batches": [(0, as_ever), (1.0, unchanged), (3, "limit_test_batches=3 must be 1.0")],
    "limit_predict_batches": [(1, "limit_predict_batches: nothing predicts")],
    "overfit_batches": [(2, overfitted), (0.0, unchanged), (0.5, "overfit_batches=0.5 must be")],
    "val_check_interval": [(3, validations(0, 3, 6)), (0.5, validations(0, 3, 6)),
                           (9, "val_check_interval=9 must be at most the 6 windows")],
    "check_val_every_n_epoch": [(2, validations(0)), (0, "check_val_every_n_epoch=0 must be")],
    "num_sanity_val_steps": [(0, validations(6)), (1, as_ever)],
    "log_every_n_steps": [(3, logged_every(3)), (0, "log_every_n_steps=0 must be")],
    "enable_checkpointing": [(False, as_ever), (True, has_lightnings_checkpoint)],
    "enable_progress_bar": [(False, has_no_bar)],
    "enable_model_summary": [(True, has_summary)],
    "accumulate_grad_batches": [(2, "must be 1: every window is a step"), (1, unchanged)],
    "gradient_clip_val": [(1e-4, clipped), (-1.0, "gradient_clip_val=-1.0 must be at least 0")],
    "gradient_clip_algorithm": [("norm", clipped_by_norm), ("both", "gradient_clip_algorithm")],
    "deterministic": [(True, is_deterministic), ("warn", is_deterministic)],
    "benchmark": [(True, is_benchmarked)],
    "inference_mode": [(False, validates_without_inference_mode)],
    "use_distributed_sampler": [(True, "false: each process reads its own rows")],
    "profiler": [("simple", profiled), ("mine", "trainer")],
    "detect_anomaly": [(True, as_ever)],
    "barebones": [(True, "trainer.barebones=true must be false; charrnn benchmarks loop")],
    "plugins": [([], unchanged)],
    "sync_batchnorm": [(True, "trainer.sync_batchnorm: .*no batch normalization")],
    "reload_dataloaders_every_n_epochs": [(1, "reload_dataloaders_every_n_epochs: the stream")],
    "default_root_dir": [("x", "trainer.default_root_dir: is set by hydra.run.dir=")],
    "enable_autolog_hparams": [(False, "enable_autolog_hparams: logger= logs"), (True, unchanged)],
    "model_registry": [("mine", "trainer.model_registry: checkpoints stay")],
}  # fmt: skip
"""For each key: values, and a check of the run, or what the one line that refuses it says."""
ALL = [(key, value, expected) for key, rows in TABLE.items() for value, expected in rows]
ROWS = [row for row in ALL if row[2] is not unchanged]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return settings(tmp_path_factory.mktemp("keys"))


def test_the_table_has_every_key():
    assert set(TABLE) == set(inspect.signature(Trainer.__init__).parameters) - {"self"}


def test_keys_that_change_nothing(config, tmp_path):
    changes = {f"trainer.{key}": value for key, value, expected in ALL if expected is unchanged}
    unchanged(trained(config, tmp_path / "run", changes), tmp_path / "run")


@pytest.mark.filterwarnings("ignore:You passed.*Using `precision='bf16-mixed'`")
@pytest.mark.parametrize(("key", "value", "expected"), ROWS, ids=[f"{k}={v}" for k, v, _ in ROWS])
def test_key(config, tmp_path, key, value, expected):
    folder = tmp_path / "run"
    try:
        if isinstance(expected, str):
            with pytest.raises(InputError, match=expected):
                trained(config, folder, {f"trainer.{key}": value})
            assert not folder.exists()
        else:
            expected(trained(config, folder, {f"trainer.{key}": value}), folder)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.autograd.set_detect_anomaly(False)
        torch.set_default_dtype(torch.float32)


def test_ranks_need_a_gradient_of_every_parameter(tmp_path):
    """Said in one line that names a strategy, which does without."""
    model = ("model._target_=other_models.Idle", "allow_targets=[other_models]")
    strategy = ["trainer.strategy._target_=pytorch_lightning.strategies.DDPStrategy"]
    strategy += ["trainer.strategy.find_unused_parameters=true"]
    try:
        with pytest.raises(RuntimeError) as error:
            trained(settings(tmp_path, *model, "trainer.strategy=ddp"), tmp_path / "refused")
        assert explain(error.value).endswith(" ".join(strategy))
        run = trained(settings(tmp_path, *model, *strategy), tmp_path / "run")
        as_ever(run, tmp_path / "run")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:You passed.*Using `precision='bf16-mixed'`")
@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_resumes_exactly_in_any_precision(config, tmp_path, precision):
    """The weights come into a model that has their type already."""
    two = {"trainer.precision": precision, "trainer.max_epochs": 2}
    last = str(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    try:
        trained(config, tmp_path / "whole", two)
        trained(config, tmp_path / "parts", two | {"trainer.max_epochs": 1})
        trained(config, tmp_path / "parts", two | {"resume": last})
        assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))
        initial = {"init_from": last, "optimizer.lr": 1e-300, "trainer.limit_train_batches": 1}
        run = trained(config, tmp_path / "other", two | initial)
        assert same(dict(run.task.state_dict()), state(tmp_path / "parts")["weights"])
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("key", "value"), [("min_epochs", 3), ("min_steps", 3 * WINDOWS)])
def test_a_least_length_outlasts_early_stopping(config, tmp_path, key, value):
    stop = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "val/loss",
            "patience": 1, "min_delta": 100.0}  # fmt: skip
    changes = {"trainer.max_epochs": 4, "callbacks.stop": stop}
    rounds = [
        trained(config, tmp_path / str(len(more)), changes | more).task.rounds
        for more in ({}, {f"trainer.{key}": value})
    ]
    assert rounds == [2, 3]
