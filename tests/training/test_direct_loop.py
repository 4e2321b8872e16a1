"""The loop that calls only overridden hooks, against Lightning's own: every call, in order."""

import functools
import gc

import pytest
import torch
from helpers import TEXT, fit
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.loops import _TrainingEpochLoop
from pytorch_lightning.strategies import SingleDeviceStrategy

from charrnn import Charset, GRUEncode
from charrnn.training import task as task_module
from charrnn.training.lightning_internals import DirectEpochLoop
from charrnn.training.task import CharTask

SHORT = TEXT[:500]
DATA = {"batch_size": 3, "seq_len": 7}
ROUNDS = {"max_epochs": 2, "limit_train_batches": 5, "num_sanity_val_steps": 0}
PUBLIC = [name for name in dir(Callback) if name.startswith("on_") or name in ("setup", "teardown")]
OF_A_WINDOW = ("on_train_batch_start", "on_train_batch_end")
OF_A_STEP = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
OF_A_STEP += ("on_before_optimizer_step",)


class Recorder:
    """A list of what was called, with the loop's counters, and what a hook does besides."""

    def __init__(self, act=None):
        self.calls, self.act = [], act

    def hook(self, name):
        def record(owner, *arguments, **settings):
            trainer = getattr(owner, "trainer", None) or arguments[0]
            loop, task = trainer.fit_loop.epoch_loop, trainer.lightning_module
            index = arguments[-1] if name.endswith(("batch_start", "batch_end")) else None
            counts = loop.batch_progress.state_dict(), loop._batches_that_stepped
            at = task._current_fx_name, trainer.global_step, trainer.current_epoch
            self.calls.append((type(owner).__name__, name, index, at, counts, trainer.should_stop))
            if self.act is not None:
                self.act(name, trainer, task)

        return record

    def callback(self, *names):
        """A callback that overrides these hooks."""
        return type("Recording", (Callback,), {name: self.hook(name) for name in names})()


class RecordingLogger(DummyLogger):
    def __init__(self):
        super().__init__()
        self.logged = []

    def log_metrics(self, metrics, step=None):
        self.logged.append((step, {name: float(value) for name, value in metrics.items()}))


def stop(name, trainer, task):
    """Ask for the end in the middle of a round."""
    if name == "on_train_batch_end" and trainer.global_step == 3:
        trainer.should_stop = True


def log(name, trainer, task):
    """Log numbers in hooks of windows and of rounds, and read what is there."""
    if name in (*OF_A_WINDOW, "on_train_epoch_end"):
        task.log(f"number/{name}", float(trainer.global_step), prog_bar=True)
        task.read = {**trainer.callback_metrics, **trainer.progress_bar_metrics}


def join(name, trainer, task):
    """Add a callback in the middle of a round, and take it away in the next one."""
    late = [c for c in trainer.callbacks if type(c).__name__ == "Late"]
    if not late and name == "on_train_batch_end" and trainer.global_step == 2:
        hooks = {hook: task.recorder.hook(hook) for hook in (*OF_A_WINDOW, *OF_A_STEP)}
        trainer.callbacks.append(type("Late", (Callback,), hooks)())
    elif late and name == "on_train_batch_start" and trainer.global_step == 7:
        trainer.callbacks.remove(*late)


def fail(name, trainer, task):
    if name == "on_train_batch_start" and trainer.global_step == 3:
        raise KeyboardInterrupt


CASES = {
    "every hook": (PUBLIC, None, {"limit_val_batches": 2}),
    "hooks of a window": (OF_A_WINDOW, None, {"limit_val_batches": 0}),
    "one hook": (("on_train_batch_end",), None, {"limit_val_batches": 2}),
    "validations in a round": (PUBLIC, None, {"limit_val_batches": 2, "val_check_interval": 2}),
    "validations across rounds": (
        OF_A_WINDOW, None,
        {"limit_val_batches": 2, "val_check_interval": 3, "check_val_every_n_epoch": None},
    ),
    "end of the windows": (PUBLIC, None, {"max_steps": 7, "limit_val_batches": 2}),
    "end on demand": (PUBLIC, stop, {"limit_val_batches": 2}),
    "numbers of log": (PUBLIC, log, {"log_every_n_steps": 2, "limit_val_batches": 2}),
    "a callback that joins": (OF_A_WINDOW, join, {"limit_val_batches": 0}),
    "an interrupt": (PUBLIC, fail, {"limit_val_batches": 0}),
}  # fmt: skip


def plain(trainer):
    """What remains of shorten_training_loop if it shortens nothing."""
    trainer.datamodule.stream.filled = None


def outcome(folder, monkeypatch, own, names, act, settings):
    """All calls of a fit, what was logged, weights and the loop's counters."""
    recorder, logger = Recorder(act), RecordingLogger()
    torch.manual_seed(0)
    model = GRUEncode(len(Charset.from_text(SHORT)), 5, 2, backend="torch")
    seen = []

    def setup(trainer, task, stage):
        trainer.loggers, task.recorder = [logger], recorder
        seen.append(trainer)

    callbacks = [LambdaCallback(setup=setup), recorder.callback(*names)]
    with monkeypatch.context() as patch:
        if not own:
            patch.setattr(task_module, "shorten_training_loop", plain)
        try:
            fit(folder, SHORT, model, data=DATA, callbacks=callbacks, **ROUNDS | settings)
        except SystemExit as error:
            recorder.calls.append(error.code)
    loop = seen[0].fit_loop
    assert type(loop.epoch_loop) is (DirectEpochLoop if own else _TrainingEpochLoop)
    weights = [p.tolist() for p in model.parameters()]
    numbers = {k: float(v) for k, v in seen[0].callback_metrics.items()}
    return recorder.calls, logger.logged, weights, numbers, loop.state_dict(), loop.epoch_loop


@pytest.mark.filterwarnings("ignore:You called `self.log")
@pytest.mark.parametrize("case", CASES)
def test_every_hook_is_called_as_by_lightning(tmp_path, monkeypatch, case):
    names, act, settings = CASES[case]
    *found, loop = outcome(tmp_path, monkeypatch, True, names, act, settings)
    *expected, _ = outcome(tmp_path, monkeypatch, False, names, act, settings)
    assert loop.is_direct
    assert len(found[0]) >= 4
    assert found == expected


def skip_rest(calls):
    def on_train_batch_start(self, batch, batch_idx):
        calls.append(("module", batch_idx))
        return -1 if batch_idx == 2 else None

    return on_train_batch_start


def test_a_modules_hook_ends_a_round(tmp_path, monkeypatch):
    """What needs Lightning's own loop runs in it."""
    found = []
    for own in (True, False):
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(CharTask, "on_train_batch_start", skip_rest(calls))
            *rest, loop = outcome(tmp_path, patch, own, OF_A_WINDOW, None, {"limit_val_batches": 0})
        assert not own or not loop.is_direct
        found.append((calls, *rest))
    assert found[0][0] == [("module", i) for i in (0, 1, 2)] * 2
    assert found[0] == found[1]


class OwnStrategy(SingleDeviceStrategy):
    """Overrides a hook of each part of a window, one at a time."""


@pytest.mark.parametrize(
    "name",
    ["on_train_batch_start", "batch_to_device", "training_step", "backward", "pre_backward",
     "post_backward", "optimizer_step"],
)  # fmt: skip
def test_a_strategys_methods_are_called(tmp_path, monkeypatch, name):
    found = []
    for own in (True, False):
        calls = []

        def method(self, *arguments, calls=calls, **settings):
            calls.append(name)
            return getattr(super(OwnStrategy, self), name)(*arguments, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(OwnStrategy, name, method, raising=False)
            settings = {"strategy": OwnStrategy("cpu"), "limit_val_batches": 0}
            *rest, _ = outcome(tmp_path, patch, own, OF_A_WINDOW, None, settings)
        found.append((calls, *rest))
    assert len(found[0][0]) == 10
    assert found[0] == found[1]


def test_a_hook_that_an_object_has(tmp_path, monkeypatch):
    """Not its class; and one that is no method, which Lightning calls as well."""
    windows = []

    def at_end(folder, trainer, task, outputs, batch, batch_idx):
        windows.append(batch_idx)

    callback = LambdaCallback(on_train_batch_end=functools.partial(at_end, tmp_path))
    torch.manual_seed(0)
    model = GRUEncode(len(Charset.from_text(SHORT)), 5, 2, backend="torch")
    fit(tmp_path, SHORT, model, data=DATA, callbacks=[callback], limit_val_batches=0, **ROUNDS)
    assert windows == [0, 1, 2, 3, 4] * 2


def test_lightning_has_what_the_loop_uses(tmp_path):
    """Names that only rare windows touch."""
    assert LightningModule.on_train_batch_start and _TrainingEpochLoop.on_advance_end
    model = GRUEncode(len(Charset.from_text(SHORT)), 5, 2, backend="torch")
    _, trainer = fit(tmp_path, SHORT, model, data=DATA, limit_val_batches=0, max_steps=1)
    assert trainer._val_check_time_interval is None and trainer.received_sigterm is False
    assert trainer.fit_loop.epoch_loop._skip_next_val is False


def test_windows_leave_no_reference_cycles(tmp_path):
    """Of which the garbage collector would have to look at all objects."""
    found = []

    class Collect(Callback):
        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            if batch_idx in (2, 12):  # the first windows make what stays
                found.append(gc.collect())

    settings = {"limit_val_batches": 0, "max_steps": 15, "callbacks": [Collect()]}
    model = GRUEncode(len(Charset.from_text(SHORT)), 5, 2)
    gc.disable()
    try:
        fit(tmp_path, SHORT, model, data=DATA, **settings)
    finally:
        gc.enable()
    assert found[1] == 0
