"""Private names of Lightning: a shorter training loop, its counters, its signal broadcast.

No other file of this room touches them. tests/training/test_lightning_internals.py fails when
Lightning changes them.
"""

import contextlib
import inspect
import logging
import warnings
from collections import OrderedDict

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer.call import _call_lightning_module_hook
from pytorch_lightning.utilities.model_helpers import is_overridden

from charrnn.training.gradients import fused_update
from charrnn.training.window_graph import WindowGraph, capture

HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
HOOKS += ("on_before_optimizer_step",)
MODULE_HOOKS = ("backward", "optimizer_zero_grad", "optimizer_step", *HOOKS)


class DirectOptimization(_AutomaticOptimization):
    """Lightning's automatic optimization without the calls of hooks that are not overridden.

    Some forty such calls cost half a millisecond a window. If a hook is overridden, or with scaled
    gradients, several devices, a profiler or an optimizer that needs a closure, Lightning's own
    implementation runs.
    """

    def __init__(self, trainer):
        super().__init__(trainer)
        self.direct: bool | None = None  # decided at the first window, when everything is set up
        self.graph: WindowGraph | None = None

    def run(self, optimizer, batch_idx: int, kwargs: dict) -> dict:
        if self.direct is None:
            self.direct = self.can_be_direct(optimizer)
            self.graph = capture(self.trainer, optimizer, self.listener(optimizer))
        if self.graph is not None:
            return self.replay(*kwargs.values())
        if not self.direct:
            return super().run(optimizer, batch_idx, kwargs)
        trainer, progress = self.trainer, self.optim_progress.optimizer
        task = trainer.lightning_module
        with torch.enable_grad():
            with trainer.precision_plugin.train_step_context():
                output = _call_lightning_module_hook(trainer, "training_step", *kwargs.values())
            if isinstance(output, torch.Tensor):
                loss, result = output, {"loss": output.detach()}
            else:  # a dictionary, which Lightning validates
                closure = self.output_result_cls.from_training_step_output(output, 1)
                loss, result = closure.closure_loss, closure.asdict()
            progress.zero_grad.increment_ready()
            optimizer.zero_grad()
            progress.zero_grad.increment_completed()
            loss.backward()
        progress.step.increment_ready()
        if not fused_update(task):
            task.configure_gradient_clipping(
                optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
            )
            optimizer.step()
        progress.step.increment_completed()
        return result

    def replay(self, window, batch_idx: int) -> dict:
        """Run a window as a CUDA graph, and count it as Lightning does."""
        parts = self.optim_progress.optimizer.zero_grad, self.optim_progress.optimizer.step
        for part in parts:
            part.increment_ready()
        result = self.graph(window)
        for part in parts:
            part.increment_completed()
        return result

    def can_be_direct(self, optimizer) -> bool:
        """Whether skipping the calls changes nothing."""
        trainer, precision = self.trainer, self.trainer.precision_plugin
        mixed = type(precision) is MixedPrecision and precision.scaler is None
        return (
            (mixed or type(precision) is Precision)
            and isinstance(trainer.strategy, SingleDeviceStrategy)
            and trainer.accumulate_grad_batches == 1
            and self.listener(optimizer) is None
        )

    def listener(self, optimizer) -> str | None:
        """Describe what needs the single parts of a step; None if nothing does."""
        trainer, task = self.trainer, self.trainer.lightning_module
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if not isinstance(trainer.profiler, PassThroughProfiler):
            return "a profiler measures its parts"
        if closure is not None and closure.default is closure.empty:
            return f"{type(optimizer).__name__} needs a closure"
        for callback in trainer.callbacks:
            for hook in HOOKS:
                if is_overridden(hook, callback, Callback):
                    return f"{type(callback).__name__} has the hook {hook}"
        for hook in MODULE_HOOKS:
            if is_overridden(hook, task, LightningModule):
                return f"{type(task).__name__} has the hook {hook}"
        return None


def shorten_training_loop(trainer) -> None:
    """Skip parts of Lightning's training loop that do nothing in this run.

    Together they are 3 % of a window at the default sizes (H 128, L 2, B 16, two CPU cores).
    """
    epoch_loop, task = trainer.fit_loop.epoch_loop, trainer.lightning_module
    trainer.datamodule.stream.filled = None  # by a graph of an earlier fit
    epoch_loop.automatic_optimization = DirectOptimization(trainer)
    # Lightning inspects the names of the step's arguments at each window ...
    if list(inspect.signature(task.training_step).parameters)[1:] == ["batch_idx"]:
        epoch_loop._build_kwargs = lambda kwargs, batch, batch_idx: OrderedDict(
            batch=batch, batch_idx=batch_idx
        )
    # ... and calls the hooks of data transfer.
    hooks = ("on_before_batch_transfer", "on_after_batch_transfer")
    owners = ((task, LightningModule), (trainer.datamodule, LightningDataModule))
    if not any(is_overridden(hook, *owner) for hook in hooks for owner in owners):
        task._on_before_batch_transfer = lambda batch, dataloader_idx=0: batch
        task._apply_batch_transfer_handler = trainer.datamodule.transfer_batch_to_device
    if type(trainer.profiler) is PassThroughProfiler:
        trainer.profiler = NullProfiler()


class NullProfiler(PassThroughProfiler):
    """No profiler, without creating a generator for each of the twenty calls of a window."""

    null = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:
        return self.null


def disable_sigterm_broadcast(trainer) -> None:
    """Skip the broadcast by which Lightning's ranks share SIGTERM at each window.

    It waits for the GPU, and is not needed where other code handles SIGTERM.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def limit_steps(trainer, windows: int) -> None:
    """Lower ``trainer.max_steps`` after the trainer was made."""
    loop = trainer.fit_loop.epoch_loop
    loop.max_steps = windows if loop.max_steps < 0 else min(windows, loop.max_steps)


def validate(trainer) -> None:
    """Validate once more while a run trains or ends, with all hooks of a validation."""
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True


def set_loop_progress(loops: dict, rounds: int, round_windows: int, windows: int) -> None:
    """Set the counters in a checkpoint's "loops" to their values between two windows.

    A checkpoint that is saved in any hook then resumes alike: in its round, at the next window.

    Args:
        loops: state dicts of Lightning's loops, changed in place.
        rounds: finished rounds.
        round_windows: finished windows of the current round.
        windows: finished windows of the run.
    """
    loop = loops["fit_loop"]

    def count(progress: dict, total: int, current: int) -> None:
        for part, value in (("total", total), ("current", current)):
            for key in progress[part]:
                progress[part][key] = value

    count(loop["epoch_progress"], rounds, rounds)
    for part in ("total", "current"):
        loop["epoch_progress"][part] |= {"ready": rounds + 1, "started": rounds + 1}
    batches = loop["epoch_loop.batch_progress"]
    count(batches, windows, round_windows)
    batches["is_last_batch"] = False
    optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    count(optimizer["step"], windows, round_windows)
    count(optimizer["zero_grad"], windows, round_windows)
    validation = loop["epoch_loop.val_loop.batch_progress"]
    count(validation, 0, 0)
    validation["is_last_batch"] = False


IGNORED_ADVICE = (
    "You're resuming from a checkpoint that ended",
    "The number of training batches",
    "Total length of `list` across ranks is zero",
    ".*LeafSpec.*",
    "Checkpoint directory .* exists and is not empty",
)
"""Beginnings of Lightning's warnings about what is done on purpose here."""


def quiet_lightning() -> None:
    """Leave out Lightning's logs, and its advice about what is done on purpose."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IGNORED_ADVICE:
        warnings.filterwarnings("ignore", message=message)
