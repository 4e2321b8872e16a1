"""Private names of Lightning: a shorter training loop, its limits, its signal broadcast.

No other file of this room touches them. tests/training/test_lightning_internals.py fails when
Lightning changes them.
"""

import contextlib
import inspect
from collections.abc import Callable

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.loops import _TrainingEpochLoop
from pytorch_lightning.loops.fetchers import _PrefetchDataFetcher
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy, Strategy

from charrnn.data.rounds import Rounds
from charrnn.training.gradients import fused_update
from charrnn.training.window_graph import WindowGraph, capture

HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
HOOKS += ("on_before_optimizer_step",)
MODULE_HOOKS = ("backward", "optimizer_zero_grad", "optimizer_step", *HOOKS)
STRATEGY_HOOKS = ("training_step", "backward", "pre_backward", "post_backward", "optimizer_step")
TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


def overrides(owner: object, name: str, base: type) -> bool:
    """Whether an object has a method of its own instead of that of ``base``."""
    return getattr(getattr(owner, name), "__func__", None) is not getattr(base, name)


class DirectEpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the windows of a round, calling only hooks that are overridden.

    Calls without effect cost 0.2 ms a window. Lightning's own methods run at the first window
    after a resume, before a validation, and in all windows where something of theirs is needed.
    """

    seen: list[Callback] | None = None
    """The callbacks of which ``hooks`` are those of a window, by name and by id; or False."""

    def run(self, data_fetcher) -> None:
        self.find_hooks(data_fetcher)
        super().run(data_fetcher)

    def find_hooks(self, data_fetcher) -> None:
        """Find the hooks of a window, and whether calling these is all that Lightning does."""
        trainer, task = self.trainer, self.trainer.lightning_module
        if self.seen is not None and self.seen != trainer.callbacks:
            self.automatic_optimization.direct = None  # is decided again
        self.seen = list(trainer.callbacks)
        self.hooks = {
            name: {id(c): overrides(c, name, Callback) and getattr(c, name) for c in self.seen}
            for name in ("on_train_batch_start", "on_train_batch_end")
        }
        loaders = trainer.fit_loop._combined_loader.flattened
        self.is_direct = (
            type(data_fetcher) is _PrefetchDataFetcher
            and [type(loader) for loader in loaders] == [Rounds]
            and type(trainer.profiler) is NullProfiler
            and task.automatic_optimization
            and trainer.accumulate_grad_batches == 1
            and not has_transfer_hooks(trainer)
            and not overrides(trainer.precision_plugin, "convert_input", Precision)
            and not overrides(trainer.strategy, "batch_to_device", Strategy)
            and not overrides(trainer.strategy, "on_train_batch_start", Strategy)
            and not overrides(task, "on_train_batch_start", LightningModule)
            and list(inspect.signature(task.training_step).parameters)[1:] == ["batch_idx"]
        )

    def advance(self, data_fetcher) -> None:
        trainer, progress, results = self.trainer, self.batch_progress, self._results
        if trainer.callbacks != self.seen:
            self.find_hooks(data_fetcher)
        if not self.is_direct or self.restarting or self.val_loop.restarting:
            return super().advance(data_fetcher)
        task, connector = trainer.lightning_module, trainer._logger_connector
        if trainer.world_size > 1:
            self._broadcast_sigterm_tensor()
        batch, _, _ = next(data_fetcher)
        index = progress.current.ready
        progress.is_last_batch = data_fetcher.done
        device = trainer.strategy.root_device
        batch = trainer.datamodule.transfer_batch_to_device(batch, device, 0)
        progress.increment_ready()
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        self.call("on_train_batch_start", batch, index)
        progress.increment_started()
        arguments = {"batch": batch, "batch_idx": index}
        output = self.automatic_optimization.run(trainer.optimizers[0], index, arguments)
        progress.increment_processed()
        if trainer.lr_scheduler_configs:  # such as a callback adds
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self.call("on_train_batch_end", output, batch, index, of_task=task.on_train_batch_end)
        if results:  # numbers of log
            connector.on_batch_end()
        results.batch = results.batch_size = None
        progress.increment_completed()
        if results:
            connector.update_train_step_metrics()

    def call(self, name: str, *arguments: object, of_task: Callable | None = None) -> None:
        """Call the hooks of a name, which ``task.log`` needs to know in them."""
        trainer, known = self.trainer, self.hooks[name]
        task = trainer.lightning_module
        before, task.__dict__["_current_fx_name"] = task._current_fx_name, name
        for callback in trainer.callbacks:  # also one that a hook has added
            hook = known[id(callback)] if id(callback) in known else getattr(callback, name)
            if callable(hook):
                hook(trainer, task, *arguments)
        if of_task is not None:
            of_task(*arguments)
        task.__dict__["_current_fx_name"] = before

    def on_advance_end(self, data_fetcher) -> None:
        if not self.is_direct or self._skip_next_val or self.may_end():
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    def may_end(self) -> bool:
        """Whether a validation, a signal or the end of the run may follow the last window."""
        trainer, every = self.trainer, self.trainer.val_check_batch
        if self.batch_progress.is_last_batch or trainer.should_stop or trainer.received_sigterm:
            return True
        timed = trainer._val_check_time_interval is not None
        if timed or every == float("inf") or trainer.lr_scheduler_configs:
            return True
        across_rounds = trainer.check_val_every_n_epoch is None
        windows = self.batch_progress.total if across_rounds else self.batch_progress.current
        return windows.ready % every == 0


class DirectOptimization(_AutomaticOptimization):
    """Lightning's automatic optimization without the calls of hooks that are not overridden.

    Some forty such calls cost half a millisecond a window. Lightning's own runs if a hook is
    overridden, or with scaled gradients, several devices, a profiler or a closure.
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
        task, precision = trainer.lightning_module, trainer.precision_plugin
        fields = task.__dict__
        with torch.enable_grad():
            before, fields["_current_fx_name"] = fields["_current_fx_name"], "training_step"
            plain = type(precision) is Precision  # whose context does nothing
            with NullProfiler.null if plain else precision.train_step_context():
                output = task.training_step(*kwargs.values())
            fields["_current_fx_name"] = before
            loss, result = output, None
            if not isinstance(output, torch.Tensor):  # a dictionary, which Lightning validates
                closure = self.output_result_cls.from_training_step_output(output, 1)
                loss, result = closure.closure_loss, closure.asdict()
            progress.zero_grad.increment_ready(), progress.zero_grad.increment_started()
            if task.fused is None:
                optimizer.zero_grad()
            else:  # torch's own does no more, and takes longer
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = None
            progress.zero_grad.increment_completed()
            loss.backward()
        progress.step.increment_ready()
        if not fused_update(task):
            task.configure_gradient_clipping(
                optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
            )
            optimizer.step()
        progress.step.increment_completed()
        return result or {"loss": loss.detach()}

    def replay(self, window, batch_idx: int) -> dict:
        """Run a window as a CUDA graph, counted as by Lightning."""
        counts = self.optim_progress.optimizer
        counts.zero_grad.increment_ready(), counts.zero_grad.increment_started()
        counts.step.increment_ready()
        result = self.graph(window)
        counts.zero_grad.increment_completed(), counts.step.increment_completed()
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
        owners = [(task, MODULE_HOOKS, LightningModule)]
        owners += [(callback, HOOKS, Callback) for callback in trainer.callbacks]
        if isinstance(trainer.strategy, SingleDeviceStrategy):
            owners += [(trainer.strategy, STRATEGY_HOOKS, Strategy)]
        for owner, hooks, base in owners:
            for hook in hooks:
                if overrides(owner, hook, base):
                    return f"{type(owner).__name__} has the hook {hook}"
        return None


def has_transfer_hooks(trainer) -> bool:
    """Whether something happens to a batch before or after its transfer to the device."""
    owners = (trainer.lightning_module, LightningModule), (trainer.datamodule, LightningDataModule)
    return any(overrides(owner, name, base) for name in TRANSFER_HOOKS for owner, base in owners)


def shorten_training_loop(trainer) -> None:
    """Skip parts of Lightning's training loop that do nothing in this run."""
    epoch_loop, task = trainer.fit_loop.epoch_loop, trainer.lightning_module
    trainer.datamodule.stream.filled = None  # by a graph of an earlier fit
    epoch_loop.automatic_optimization = DirectOptimization(trainer)
    if not has_transfer_hooks(trainer):  # of validation windows
        task._on_before_batch_transfer = lambda batch, dataloader_idx=0: batch
        task._apply_batch_transfer_handler = trainer.datamodule.transfer_batch_to_device
    if type(trainer.profiler) is PassThroughProfiler:
        trainer.profiler = NullProfiler()
    if type(epoch_loop) is _TrainingEpochLoop:
        epoch_loop.__class__ = DirectEpochLoop


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
