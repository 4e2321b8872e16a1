"""Progress: one bar over all windows of the run."""

import math
import sys
import time

from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm


class Progress(ProgressBar):
    """Shows loss, bpc, characters a second and the time left, twice a second.

    Where standard error is no terminal, a line every ``seconds`` there instead.

    Args:
        seconds: between two lines of a log.
    """

    def __init__(self, seconds: float = 30.0):
        super().__init__()
        self.seconds = seconds if not sys.stderr.isatty() else 0.5
        self.bar: tqdm | None = None
        self.enabled = True

    def disable(self) -> None:
        """Called by Lightning on every process but the first."""
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer, task) -> None:
        total = trainer.max_steps
        if total < 0 and (trainer.max_epochs or 0) > 0:
            total = trainer.max_epochs * trainer.num_training_batches
        self.bar = tqdm(
            total=total if total > 0 else None,
            initial=trainer.global_step,
            unit="window",
            dynamic_ncols=True,
            mininterval=0,
            disable=not self.enabled,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} windows, {remaining} left{postfix}",
        )
        self.shown = (time.perf_counter(), trainer.global_step)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        now = time.perf_counter()
        then, windows = self.shown
        if now - then < self.seconds:
            return
        loss = task.window_loss.item()
        done = trainer.global_step - windows
        rate = done * batch.inputs.numel() * trainer.world_size / (now - then)
        numbers = f"loss {loss:.3f}, bpc {loss / math.log(2):.3f}, {rate:,.0f} characters/s"
        self.bar.set_postfix_str(numbers, refresh=False)
        self.bar.update(done)
        self.shown = (now, trainer.global_step)

    def on_train_end(self, trainer, task) -> None:
        self._close(trainer.global_step)

    def teardown(self, trainer, task, stage: str) -> None:
        self._close(None)

    def _close(self, windows: int | None) -> None:
        if self.bar is not None:
            if windows is not None:
                self.bar.n = windows
                self.bar.refresh()
            self.bar.close()
            self.bar = None
