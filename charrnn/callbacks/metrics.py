"""Metrics: the numbers of training and validation, to metrics.csv and TensorBoard."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from pytorch_lightning import Callback
from tqdm import tqdm

from charrnn.callbacks.event_files import BY_CHARACTERS
from charrnn.callbacks.loggers import (
    add_hyperparameters,
    add_text,
    flush,
    ignore_writer_threads,
    log_numbers,
    to_loggers,
    to_tensorboard,
)
from charrnn.callbacks.metrics_csv import MetricsFile
from charrnn.callbacks.relay import Relay
from charrnn.errors import InputError, escape_control
from charrnn.training.metrics import publish


class Metrics(Callback):
    """Writes every ``trainer.log_every_n_steps`` windows and after each validation.

    Losses are means over the windows since the last write, in nats per character; bpc is the same
    in bits. ``grad_norm`` is the gradients' norm before clipping and ``clipped`` the share of
    elements that clipping changes, both of the last window. Steps are windows; TensorBoard also
    gets bpc against characters, and the settings that vary between runs under HPARAMS. What other
    callbacks log by ``task.log`` goes to metrics.csv too. ``trainer.fast_dev_run`` writes nothing.

    ``LightningModule.log`` is not used: it costs a millisecond per number at each window, logged
    or not. Its readers find the numbers in ``trainer.callback_metrics``.
    """

    def setup(self, trainer, task, stage: str) -> None:
        ignore_writer_threads()
        self.file = MetricsFile(Path(trainer.default_root_dir) / "metrics.csv")
        self.is_failing = False
        if not (trainer.fast_dev_run or any(isinstance(g, Relay) for g in trainer.loggers)):
            trainer.loggers = [*trainer.loggers, Relay(trainer, self._add_row)]
        self.loss_sum, self.windows = 0.0, 0
        self.since: float | None = None
        """When the windows that are timed began; None before the first of them."""

    def state_dict(self) -> dict:
        return {"loss_sum": float(self.loss_sum), "windows": self.windows}

    def load_state_dict(self, state: dict) -> None:
        self.loss_sum, self.windows = state["loss_sum"], state["windows"]

    def on_train_start(self, trainer, task) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._report_failure(self.file.create)
        if trainer.ckpt_path is None:
            settings = task.description.get("settings", {})
            add_text(trainer, "settings", yaml.safe_dump(settings, sort_keys=False), 0)
            add_hyperparameters(trainer, settings, task.description.get("varied", {}))
            for windows, loss in task.validations:  # of the untrained model
                self._write_validation(trainer, task, loss, windows)

    def on_train_batch_start(self, trainer, task, batch, batch_idx: int) -> None:
        if self.since is None:
            self.since, self.timed = time.perf_counter(), 0

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        loss = task.window_loss
        # On a GPU a number would wait for it.
        self.loss_sum = self.loss_sum + (loss.double() if loss.is_cuda else loss.item())
        self.windows += 1
        self.timed += 1
        if trainer.global_step % trainer.log_every_n_steps:
            return
        task.check_divergence()
        self._average_over_ranks(trainer)
        loss = float(self.loss_sum) / self.windows
        seconds = time.perf_counter() - self.since
        rate = self.timed * batch.inputs.numel() * trainer.world_size / seconds
        numbers = {
            "train/loss": loss,
            "train/bpc": loss / math.log(2),
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            **{f"train/{name}": value.item() for name, value in task.gradient_stats.items()},
            "train/chars_per_second": rate,
            "train/passes": trainer.global_step / len(trainer.datamodule.stream),
        }
        publish(trainer, numbers)
        self._write(trainer, numbers, trainer.global_step)
        self.loss_sum, self.windows, self.since = 0.0, 0, None

    def on_validation_start(self, trainer, task) -> None:
        self.since = None  # its time does not count

    def on_validation_end(self, trainer, task) -> None:
        loss = task.validations[-1][1]
        bits = f"{loss:.4f} nats, {loss / math.log(2):.4f} bpc"
        if trainer.sanity_checking:
            tqdm.write(f"untrained: validation {bits}")
            return
        windows = trainer.global_step
        passes = windows / len(trainer.datamodule.stream)
        best = " (best)" if loss == task.validations.best else ""
        tqdm.write(f"window {windows}, {passes:.2f} passes: validation {bits}{best}")
        self._write_validation(trainer, task, loss, windows)

    def on_save_checkpoint(self, trainer, task, state: dict) -> None:
        try:
            self.file.flush()
        except OSError as error:
            # Not raised, because the other ranks wait for this one: the Checkpoint callback
            # reports it.
            trainer.strategy.checkpoint_io.error = error
        if trainer.world_size > 1:
            self._average_over_ranks(trainer)
            state["callbacks"][self.state_key] = self.state_dict()

    def on_train_end(self, trainer, task) -> None:
        if trainer.fast_dev_run:
            return
        try:
            self.file.flush()
        except OSError as error:
            raise InputError(f"{self.file.file}: cannot be written ({error.strerror})") from error

    def on_exception(self, trainer, task, exception) -> None:
        to_loggers(trainer, flush)  # before Lightning does, which may fail

    def _average_over_ranks(self, trainer) -> None:
        """Replace the sum of losses of this rank's rows by its mean over all ranks."""
        if trainer.world_size > 1:
            total = torch.as_tensor(self.loss_sum, dtype=torch.float64).to(
                trainer.strategy.root_device
            )
            self.loss_sum = trainer.strategy.reduce(total, reduce_op="mean")

    def _write_validation(self, trainer, task, loss: float, windows: int) -> None:
        numbers = {"val/loss": loss, "val/bpc": loss / math.log(2)}
        if task.validations.first:  # the text has changed since the run began
            numbers["val/characters"] = task.validations.characters
        self._write(trainer, numbers, windows)
        bits = {"val/best_bpc": task.validations.best / math.log(2)}
        to_loggers(trainer, lambda logger: logger.log_metrics(bits, step=windows))

    def _write(self, trainer, numbers: dict[str, float], windows: int) -> None:
        stream = trainer.datamodule.stream
        characters = windows * stream.batch_size * stream.seq_len * trainer.world_size
        bits = {f"{BY_CHARACTERS}{k}": v for k, v in numbers.items() if k.endswith("/bpc")}
        to_loggers(trainer, lambda logger: log_numbers(logger, numbers, windows))
        to_tensorboard(trainer, lambda logger: log_numbers(logger, bits, characters))
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._add_row(numbers, windows)

    def _add_row(self, numbers: dict[str, float], windows: int) -> None:
        """Add numbers to metrics.csv; what a full disk does not take is kept until it does."""
        self._report_failure(lambda: self.file.add(numbers, windows))

    def _report_failure(self, write: Callable[[], None]) -> None:
        """Call a function that writes to metrics.csv; print a line when it begins to fail."""
        try:
            write()
        except OSError as error:
            if not self.is_failing:
                reason = f"cannot be written ({error.strerror}); its rows are kept until it can"
                tqdm.write(escape_control(f"{self.file.file}: {reason}"))
            self.is_failing = True
        else:
            self.is_failing = self.is_failing and bool(self.file.rows)
