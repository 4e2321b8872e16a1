"""What stands on the inside of Lightning's loops: a shorter way to a step, and their counters.

Both lean on names that Lightning does not promise to keep; tests compare with its own way.
"""

import contextlib
import inspect
from collections import OrderedDict

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer.call import _call_lightning_module_hook
from pytorch_lightning.utilities.model_helpers import is_overridden

HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
HOOKS += ("on_before_optimizer_step",)
MODULE_HOOKS = ("backward", "optimizer_zero_grad", "optimizer_step", *HOOKS)


class Optimization(_AutomaticOptimization):
    """Lightning's optimization of a window, without the calls in which nothing happens.

    Some forty calls of hooks that nobody overrides cost half a millisecond a window. Where somebody
    does, or anything else is not plain (mixed precision, several devices, a profiler, an optimizer
    that takes a closure), it is Lightning's own way.
    """

    def __init__(self, trainer):
        super().__init__(trainer)
        self.plain: bool | None = None  # asked once, when everything is set up

    def run(self, optimizer, batch_idx: int, kwargs: dict) -> dict:
        if self.plain is None:
            self.plain = self.is_plain(optimizer)
        if not self.plain:
            return super().run(optimizer, batch_idx, kwargs)
        trainer, progress = self.trainer, self.optim_progress.optimizer
        task = trainer.lightning_module
        with torch.enable_grad():
            output = _call_lightning_module_hook(trainer, "training_step", *kwargs.values())
            if isinstance(output, torch.Tensor):
                loss, result = output, {"loss": output.detach()}
            else:  # a dictionary, which is checked
                closure = self.output_result_cls.from_training_step_output(output, 1)
                loss, result = closure.closure_loss, closure.asdict()
            progress.zero_grad.increment_ready()
            optimizer.zero_grad()
            progress.zero_grad.increment_completed()
            loss.backward()
        progress.step.increment_ready()
        task.configure_gradient_clipping(
            optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        )
        optimizer.step()
        progress.step.increment_completed()
        return result

    def is_plain(self, optimizer) -> bool:
        """Whether the shorter way does the same as Lightning's."""
        trainer = self.trainer
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        return (
            type(trainer.precision_plugin) is Precision
            and isinstance(trainer.strategy, SingleDeviceStrategy)
            and isinstance(trainer.profiler, PassThroughProfiler)
            and trainer.accumulate_grad_batches == 1
            and (closure is None or closure.default is not closure.empty)
            and not any(is_overridden(h, c, Callback) for h in HOOKS for c in trainer.callbacks)
            and not any(
                is_overridden(h, trainer.lightning_module, LightningModule) for h in MODULE_HOOKS
            )
        )


def shorten(trainer) -> None:
    """Take the shorter way where nobody listens along the longer one.

    Together its parts are 3 % of a window at the default sizes (H 128, L 2, B 16, two cores).
    """
    epoch_loop, task = trainer.fit_loop.epoch_loop, trainer.lightning_module
    epoch_loop.automatic_optimization = Optimization(trainer)
    # Looked up by Lightning at each window: the names of the step's arguments ...
    if list(inspect.signature(task.training_step).parameters)[1:] == ["batch_idx"]:
        epoch_loop._build_kwargs = lambda kwargs, batch, batch_idx: OrderedDict(
            batch=batch, batch_idx=batch_idx
        )
    # ... and who wants to see a window before it is used.
    hooks = ("on_before_batch_transfer", "on_after_batch_transfer")
    owners = ((task, LightningModule), (trainer.datamodule, LightningDataModule))
    if not any(is_overridden(hook, *owner) for hook in hooks for owner in owners):
        task._on_before_batch_transfer = lambda batch, dataloader_idx=0: batch
        task._apply_batch_transfer_handler = trainer.datamodule.transfer_batch_to_device
    if type(trainer.profiler) is PassThroughProfiler:
        trainer.profiler = Unprofiled()


class Unprofiled(PassThroughProfiler):
    """No profiler, without a generator for each of the twenty calls of a window."""

    nothing = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:
        return self.nothing


def agree_on_no_signal(trainer) -> None:
    """Leave out Lightning's own word between processes at each window, which waits for the GPU.

    It tells of SIGTERM, and whoever listens to that instead of Lightning has it never told.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def set_progress(loops: dict, rounds: int, round_windows: int, windows: int) -> None:
    """Write the counters of Lightning's loops as they are between two windows.

    A checkpoint saved in any hook then resumes the same way: inside a round, at its next window.
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
