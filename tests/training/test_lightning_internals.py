"""Lightning still has the private names that are used, and the shorter loop changes nothing."""

import inspect

import pytest
import torch
from helpers import TEXT, fit
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization

from charrnn import Charset, GRUEncode
from charrnn.data.datamodule import CharDataModule
from charrnn.training.lightning_internals import limit_steps
from charrnn.training.loop_progress import set_loop_progress
from charrnn.training.task import CharTask

SHORT = TEXT[:500]
DATA = {"batch_size": 3, "seq_len": 7}
LOOPS = "fit_loop"


def make_model(backend="torch"):
    torch.manual_seed(0)
    return GRUEncode(len(Charset.from_text(SHORT)), 5, 3, backend=backend)


def test_lightning_has_the_private_names():
    """Replacing a method that Lightning no longer calls would have no effect."""
    loop = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop.epoch_loop
    assert type(loop.automatic_optimization) is _AutomaticOptimization
    assert list(inspect.signature(loop.automatic_optimization.run).parameters) == [
        "optimizer", "batch_idx", "kwargs",
    ]  # fmt: skip
    assert list(inspect.signature(loop._build_kwargs).parameters) == [
        "kwargs", "batch", "batch_idx",
    ]  # fmt: skip
    assert not inspect.signature(loop._broadcast_sigterm_tensor).parameters
    for name in ("_on_before_batch_transfer", "_apply_batch_transfer_handler"):
        assert callable(getattr(LightningModule, name))
    assert hasattr(LightningModule(), "_current_fx_name")  # CharTask.__setattr__ skips it


def leaves(progress, path=()):
    for key, value in progress.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_loop_progress_has_lightnings_keys_and_values(tmp_path):
    """Lightning's own counters after a finished run, but for those of the next round."""
    task, trainer = fit(
        tmp_path, SHORT, make_model(), data=DATA, max_epochs=2, limit_train_batches=4
    )
    loops = {LOOPS: trainer.fit_loop.state_dict()}
    before = dict(leaves(loops))
    set_loop_progress(loops, task.rounds, 4, trainer.global_step)
    after = dict(leaves(loops))
    assert before.keys() == after.keys()  # no key of another name was added
    steps = "epoch_loop.automatic_optimization.optim_progress"
    for total in ("ready", "completed"):
        key = (LOOPS, steps, "optimizer", "step", "total", total)
        assert before[key] == after[key] == 8
        key = (LOOPS, "epoch_loop.batch_progress", "current", total)
        assert before[key] == after[key] == 4
    key = (LOOPS, "epoch_progress", "total", "completed")
    assert before[key] == after[key] == 2


@pytest.mark.parametrize(("before", "after"), [(-1, 7), (5, 5), (9, 7)])
def test_limit_steps(before, after):
    trainer = Trainer(
        logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=before, max_epochs=-1
    )
    limit_steps(trainer, 7)
    assert trainer.max_steps == after


class Hooked(Callback):
    """Overrides a hook, so that Lightning's own optimization runs."""

    def on_after_backward(self, trainer, task):
        pass


@pytest.mark.parametrize(
    ("clip", "precision"),
    [(None, "32-true"), ("value", "32-true"), ("norm", "32-true"), ("value", "bf16-mixed")],
)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_direct_optimization_equals_lightnings(tmp_path, clip, precision, backend):
    """Weights bit for bit, and counters; and only without overridden hooks.

    The norm of the gradients is another sum of the same numbers. The kernels step for a model
    that they compute, and no other: a run with backend=torch compiles nothing.
    """
    found = []
    for callbacks in ([], [Hooked()]):
        model = make_model(backend)
        settings = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": clip} if clip else {}
        task, _ = fit(
            tmp_path, SHORT, model, task={"l2": 0.3}, data=DATA, max_steps=3,
            log_every_n_steps=1, limit_val_batches=0, callbacks=callbacks, precision=precision,
            **settings,
        )  # fmt: skip
        loop = task.trainer.fit_loop.epoch_loop.automatic_optimization
        assert loop.direct is not bool(callbacks)
        assert (task.fused is not None) is (backend == "native")
        counters = loop.optim_progress.optimizer.step.total, task.trainer.global_step
        found.append((counters, [p.detach().clone() for p in model.parameters()]))
    assert found[0][0] == found[1][0]
    tolerance = 1e-6 if clip == "norm" else 0
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:You have overridden")  # Lightning says which it calls
@pytest.mark.parametrize("owner", [CharTask, CharDataModule], ids=lambda owner: owner.__name__)
@pytest.mark.parametrize("hook", ["on_before_batch_transfer", "on_after_batch_transfer"])
def test_transfer_hooks_are_called(tmp_path, monkeypatch, owner, hook):
    seen = []

    def record(self, batch, dataloader_idx):
        seen.append(batch.index)
        return batch

    monkeypatch.setattr(owner, hook, record, raising=False)
    fit(
        tmp_path, SHORT, make_model(), data=DATA,
        max_steps=3, limit_val_batches=0,
    )  # fmt: skip
    assert seen[-3:] == [0, 1, 2]


def test_profiler_is_not_replaced(tmp_path):
    _, trainer = fit(
        tmp_path, SHORT, make_model(), data=DATA,
        max_steps=3, limit_val_batches=0, profiler="simple",
    )  # fmt: skip
    assert len(trainer.profiler.recorded_durations["run_training_batch"]) == 3
