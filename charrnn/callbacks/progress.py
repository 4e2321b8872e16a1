"""Progress: one bar over all windows of the run, or lines for a log file."""

import math
import sys
import time

from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from charrnn.data.waiting import is_terminal

SILENCE = 5.0
"""Seconds of a validation without a line."""


class Progress(ProgressBar):
    """Shows loss, bpc, characters per second and the remaining time, updated twice a second.

    If standard error is neither a terminal nor in a notebook, prints a line every ``seconds``
    instead.

    Args:
        seconds: time between two lines.
    """

    def __init__(self, seconds: float = 30.0):
        super().__init__()
        self.has_bar = is_terminal(sys.stderr) or is_notebook()
        self.seconds = 0.5 if self.has_bar else seconds
        self.bar: tqdm | None = None
        self.enabled = True

    def disable(self) -> None:
        """Called by Lightning on all ranks but rank zero."""
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer, task) -> None:
        self.total = task.total_steps()
        self.bar = tqdm(
            total=self.total,
            initial=trainer.global_step,
            unit="window",
            dynamic_ncols=True,
            mininterval=0,
            disable=not (self.enabled and self.has_bar),
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} windows, {remaining} left{postfix}",
        )
        self.started = self.last = (time.perf_counter(), trainer.global_step)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        now, window = time.perf_counter(), trainer.global_step
        then, before = self.last
        if now - then < self.seconds or not self.enabled:
            return
        loss = task.window_loss.item()  # of this rank's rows
        rate = (window - before) * batch.inputs.numel() * trainer.world_size / (now - then)
        numbers = f"loss {loss:.3f}, bpc {loss / math.log(2):.3f}, {rate:,.0f} characters/s"
        if self.bar.disable:
            then, before = self.started
            left = (now - then) / (window - before) * ((self.total or window) - window)
            remaining = f", {tqdm.format_interval(left)} left" if self.total else ""
            print(f"window {window}/{self.total or '?'}{remaining}, {numbers}", file=sys.stderr)
        else:
            self.bar.set_postfix_str(numbers, refresh=False)
            self.bar.update(window - before)
        self.last = (now, window)

    def on_validation_start(self, trainer, task) -> None:
        self.validated = time.perf_counter()

    def on_validation_batch_end(
        self, trainer, task, outputs, batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        now = time.perf_counter()
        if now - self.validated < SILENCE or not self.enabled:
            return
        of_sanity = trainer.num_sanity_val_batches if trainer.sanity_checking else None
        (total,) = of_sanity or trainer.num_val_batches
        tqdm.write(f"validation: {batch_idx + 1} of {total} windows", file=sys.stderr)
        self.validated = now

    def on_train_end(self, trainer, task) -> None:
        self._close(trainer.global_step)

    def on_exception(self, trainer, task, exception) -> None:
        self._close(None)

    def teardown(self, trainer, task, stage: str) -> None:
        self._close(None)

    def _close(self, windows: int | None) -> None:
        if self.bar is not None:
            if windows is not None:
                self.bar.n = windows
                self.bar.refresh()
            self.bar.close()
            self.bar = None


def is_notebook() -> bool:
    """Whether this is a notebook, whose output shows a bar though it is no terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
