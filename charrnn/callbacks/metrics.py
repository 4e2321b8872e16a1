"""Metrics: the numbers of training and validation, into TensorBoard and metrics.csv."""

import csv
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from pytorch_lightning import Callback
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from charrnn.checkpoint.files import atomic_write
from charrnn.errors import InputError, escape_control

COLUMNS = (
    "train/loss", "train/bpc", "val/loss", "val/bpc", "train/lr", "train/grad_norm",
    "train/clipped", "train/chars_per_second", "train/passes",
)  # fmt: skip
FAILING: set[int] = set()
"""The loggers (their ids) that could not be written to the last time."""


BY_CHARACTERS = "by_characters/"
"""Before the name of what stands in TensorBoard against characters and not windows."""


class Metrics(Callback):
    """Writes every ``trainer.log_every_n_steps`` windows and after each validation.

    Losses are means over the windows since the last writing, in nats per character, and bpc is the
    same in bits; grad_norm is that before clipping and clipped the share of elements that it cuts,
    both of the last window. Every number stands against the windows trained on; in TensorBoard,
    bpc also against the characters, and what varies between runs is under HPARAMS.

    Nothing goes through ``LightningModule.log``, which costs a millisecond for each number at each
    window, written or not.
    """

    def setup(self, trainer, task, stage: str) -> None:
        threading.excepthook = quiet_writers
        self.file = Path(trainer.default_root_dir) / "metrics.csv"
        self.loss_sum, self.windows = 0.0, 0
        self.row: dict = {}
        self.rows: list[dict] = []  # that are not written yet
        self.written, self.late = -math.inf, False
        self.since: float | None = None

    def state_dict(self) -> dict:
        return {"loss_sum": float(self.loss_sum), "windows": self.windows}

    def load_state_dict(self, state: dict) -> None:
        self.loss_sum, self.windows = state["loss_sum"], state["windows"]

    def on_train_start(self, trainer, task) -> None:
        self.writes = trainer.is_global_zero
        if self.writes and not self.file.exists():
            with open(self.file, "w", newline="") as f:
                csv.DictWriter(f, ("step", *COLUMNS)).writeheader()
        if trainer.ckpt_path is None:
            text = yaml.safe_dump(task.description.get("settings", {}), sort_keys=False)
            add_text(trainer, "settings", text, 0)
            add_hyperparameters(trainer, task.description.get("varied", {}))
            for windows, loss in task.validations:  # of the untrained model
                self._write_validation(trainer, task, loss, windows)

    def on_train_batch_start(self, trainer, task, batch, batch_idx: int) -> None:
        if self.since is None:
            self.since, self.timed = time.perf_counter(), 0

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        self.loss_sum = self.loss_sum + task.window_loss.double()
        self.windows += 1
        self.timed += 1
        if trainer.global_step % trainer.log_every_n_steps:
            return
        task.check_finite()
        self._share(trainer)
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
        self._write(trainer, numbers, trainer.global_step)
        self.loss_sum, self.windows, self.since = 0.0, 0, None

    def on_validation_start(self, trainer, task) -> None:
        self.since = None  # its time is not training's

    def on_validation_end(self, trainer, task) -> None:
        loss = task.validations[-1][1]
        bits = f"{loss:.4f} nats, {loss / math.log(2):.4f} bpc"
        if trainer.sanity_checking:
            tqdm.write(f"untrained: validation {bits}")
            return
        windows = trainer.global_step
        passes = windows / len(trainer.datamodule.stream)
        best = " (best)" if loss == min(v for _, v in task.validations) else ""
        tqdm.write(f"window {windows}, {passes:.2f} passes: validation {bits}{best}")
        self._write_validation(trainer, task, loss, windows)

    def on_save_checkpoint(self, trainer, task, state: dict) -> None:
        try:
            self._end_row()
        except OSError as error:
            # Not raised: other processes wait for this one. The checkpoint's writer says it.
            trainer.strategy.checkpoint_io.error = error
        if trainer.world_size > 1:
            self._share(trainer)
            state["callbacks"][self.state_key] = self.state_dict()

    def on_train_end(self, trainer, task) -> None:
        try:
            self._end_row()
        except OSError as error:
            raise InputError(f"{self.file}: cannot be written ({error.strerror})") from error

    def on_exception(self, trainer, task, exception) -> None:
        to_loggers(trainer, flush)  # before Lightning does, where it may fail

    def _share(self, trainer) -> None:
        """Make the sum of losses, of rows of this process alone, the mean over all processes."""
        if trainer.world_size > 1:
            total = torch.as_tensor(self.loss_sum, dtype=torch.float64).to(
                trainer.strategy.root_device
            )
            self.loss_sum = trainer.strategy.reduce(total, reduce_op="mean")

    def _write_validation(self, trainer, task, loss: float, windows: int) -> None:
        self._write(trainer, {"val/loss": loss, "val/bpc": loss / math.log(2)}, windows)
        best = min(value for _, value in task.validations)
        bits = {"val/best_bpc": best / math.log(2)}
        to_loggers(trainer, lambda logger: logger.log_metrics(bits, step=windows))

    def _write(self, trainer, numbers: dict[str, float], windows: int) -> None:
        stream = trainer.datamodule.stream
        characters = windows * stream.batch_size * stream.seq_len * trainer.world_size
        bits = {f"{BY_CHARACTERS}{k}": v for k, v in numbers.items() if k.endswith("/bpc")}
        to_loggers(trainer, lambda logger: logger.log_metrics(numbers, step=windows))
        to_loggers(trainer, lambda logger: logger.log_metrics(bits, step=characters))
        # A window's training and validation share a row, so that no step stands there twice.
        if self.row.get("step") != windows:
            try:
                self._end_row(within=1.0)
            except OSError as error:
                if not self.late:
                    self.late = True
                    reason = f"cannot be written ({error.strerror}); its rows are kept until it can"
                    tqdm.write(escape_control(f"{self.file}: {reason}"))
            self.row = {"step": windows}
        self.row |= numbers

    def _end_row(self, within: float = 0.0) -> None:
        """Append what is not in the file yet, whole rows or nothing. Raises OSError.

        Args:
            within: seconds; where the last rows are no older than that, these wait for the next.
        """
        self.rows += [self.row] if self.row and self.writes else []
        self.row = {}
        if not self.rows or time.perf_counter() - self.written < within:
            return
        self.written = time.perf_counter()
        size = self.file.stat().st_size
        try:
            with open(self.file, "a", newline="") as f:
                csv.DictWriter(f, ("step", *COLUMNS)).writerows(self.rows)
        except OSError:
            os.truncate(self.file, size)
            raise
        self.rows, self.late = [], False


def drop_later(run: Path, windows: int, characters: int) -> None:
    """Leave of a run's metrics.csv and TensorBoard files what stands at a window or before it.

    What came after it happens again when the run goes on. A window is so many characters.
    """
    file = run / "metrics.csv"
    if file.exists():
        with open(file, newline="") as f:
            rows = [row for row in csv.DictReader(f) if is_before(row, windows)]
        with atomic_write(file, "w", newline="") as f:
            writer = csv.DictWriter(f, ("step", *COLUMNS))
            writer.writeheader()
            writer.writerows(rows)
    folder = run / "tensorboard"
    for scratch in [*run.glob(".metrics.csv.*"), *folder.glob(".events.out.tfevents.*")]:
        scratch.unlink()  # of a process that was killed
    files = sorted(folder.glob("events.out.tfevents.*"))
    # TensorBoard reads files by the time in their names. Where the clock was set back, those that
    # are here would come after the new one, and are named anew.
    ahead = any(file.name.split(".")[3] >= f"{time.time():010.0f}" for file in files)
    for number, file in enumerate(files):
        # The writer's purge_step would take with it what stands against characters.
        records = RawEventFileLoader(str(file)).Load()
        records = [r for r in records if window_of(r, characters) <= windows]
        with atomic_write(file) as f:
            for record in records:
                RecordWriter(f).write(record)
        if ahead:
            rest = file.name.split(".", 4)[4]
            file.rename(file.with_name(f"events.out.tfevents.{number:010d}.{rest}"))


def is_before(row: dict, windows: int) -> bool:
    """Whether a row is whole and of no later window; a kill can leave the last one cut."""
    return None not in row.values() and row["step"].isdigit() and int(row["step"]) <= windows


def window_of(record: bytes, characters: int) -> float:
    """The window of a TensorBoard event; -1 for what comes before the first and belongs to none."""
    event = Event.FromString(record)
    if not event.HasField("summary"):
        return -1
    by_characters = any(value.tag.startswith(BY_CHARACTERS) for value in event.summary.value)
    return event.step / characters if by_characters else event.step


def add_hyperparameters(trainer, values: dict) -> None:
    """Put a run into TensorBoard's HPARAMS, with its last and its best validation beside it."""

    def add(logger) -> None:
        if hasattr(logger.experiment, "add_hparams"):
            # Not add_hparams itself, which makes a run of its own for each call.
            writer = logger.experiment._get_file_writer()
            for summary in hparams(values, {"val/best_bpc": 0, "val/bpc": 0}):
                writer.add_summary(summary, 0)

    to_loggers(trainer, add)


def add_text(trainer, name: str, text: str, windows: int) -> None:
    """Put a text into TensorBoard as it is: four spaces make Markdown leave it alone."""
    indented = "".join(f"    {line}\n" for line in escape_control(text).split("\n"))

    def add(logger) -> None:
        if hasattr(logger.experiment, "add_text"):
            logger.experiment.add_text(name, indented, windows)

    to_loggers(trainer, add)


def to_loggers(trainer, write: Callable) -> None:
    """Hand something to each logger. What it cannot write is lost, and a line says so."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        try:
            write(logger)
            FAILING.discard(id(logger))
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__  # Lightning wraps it
            if not isinstance(cause, OSError):
                raise
            # A writer that failed once fails ever after; the next number opens a new one.
            logger.experiment.file_writer = logger.experiment.all_writers = None
            if id(logger) not in FAILING:
                FAILING.add(id(logger))
                line = f"{logger.log_dir}: cannot be written ({cause.strerror}); its curves have a"
                tqdm.write(escape_control(f"{line} gap from window {trainer.global_step} on"))


def flush(logger) -> None:
    """Have what a logger was given on disk."""
    logger.save()
    if hasattr(logger.experiment, "flush"):
        logger.experiment.flush()


def quiet_writers(args) -> None:
    """What ``threading.excepthook`` does, but for TensorBoard's writers, of which a line speaks."""
    if not (isinstance(args.exc_value, OSError) and "AsyncWriter" in type(args.thread).__name__):
        threading.__excepthook__(args)
