"""Checkpoint: saves between windows, and when somebody ends the run."""

import os
import shlex
import shutil
import signal
from pathlib import Path

from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback
from tqdm import tqdm

from charrnn import checkpoint, loops, signals
from charrnn.errors import check


class Checkpoint(Callback):
    """Keeps RUN/checkpoints: last.ckpt, best.ckpt, and round_NNNN.ckpt, 0000 being untrained.

    Saved is before the next window starts, when the validation and the end of a round that belong
    to the window before it have happened: every file is a state between two windows.

    SIGINT and SIGTERM finish the window (and a validation that it is due), save, and exit with 128
    plus the signal's number; a second one exits at once. One that asks for a requeue does the same,
    and the job is queued again. Of several processes it is enough that one gets the signal.

    Args:
        every_n_steps: windows between two savings, besides those after rounds.
        keep: how many rounds' files stay; None keeps all.
    """

    def __init__(self, every_n_steps: int = 500, keep: int | None = None):
        check("every_n_steps", every_n_steps, every_n_steps >= 1, "a whole number, at least 1")
        check("keep", keep, keep is None or keep >= 1, "a whole number, at least 1, or null")
        self.every_n_steps, self.keep = every_n_steps, keep
        self.listener = signals.Listener()
        self.agreement: signals.Agreement | None = None  # of several processes
        self.saved: int | None = None  # windows at the last saving

    def setup(self, trainer, task, stage: str) -> None:
        trainer.strategy.checkpoint_io = AtomicIO()
        self.folder = Path(trainer.default_root_dir) / "checkpoints"
        if trainer.is_global_zero:
            for scratch in self.folder.glob(".*.ckpt.*"):  # of a process that was killed
                scratch.unlink()
        self.listener.listen()

    def on_sanity_check_start(self, trainer, task) -> None:
        self.listener.listen()  # again: Lightning puts a handler of its own over that of setup

    def on_train_start(self, trainer, task) -> None:
        self.listener.listen()
        if trainer.world_size > 1:
            self.agreement = signals.Agreement()
            loops.agree_on_no_signal(trainer)
        self.due = True  # untrained, or where a run is taken up

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        self.due |= trainer.global_step % self.every_n_steps == 0

    def on_validation_end(self, trainer, task) -> None:
        self.due = True

    def on_train_epoch_end(self, trainer, task) -> None:
        self.due = True

    def on_train_batch_start(self, trainer, task, batch, batch_idx: int) -> None:
        number = self.listener.number
        if self.agreement:
            number = self.agreement.ask(number)
        if self.due or number:
            self._save(trainer, task)
            self.due = False
        self._exit_if_told(trainer, number)

    def on_train_end(self, trainer, task) -> None:
        self._save(trainer, task)
        number = self.listener.number
        if self.agreement:
            self.agreement.ask(number)
            number = self.agreement.ask(None)
        self._exit_if_told(trainer, number)

    def teardown(self, trainer, task, stage: str) -> None:
        self.listener.stop()

    def _save(self, trainer, task) -> None:
        if self.saved == trainer.global_step:
            return
        if self.saved is None and trainer.is_global_zero:
            self._drop_later(trainer.global_step)
        for logger in trainer.loggers:
            # What a checkpoint has seen must be on disk before it, or a kill would lose it.
            logger.save()
            if hasattr(logger.experiment, "flush"):
                logger.experiment.flush()
        last = self.folder / "last.ckpt"
        trainer.save_checkpoint(last)  # by all processes together
        self.saved = trainer.global_step
        if not trainer.is_global_zero:
            return
        if task.round_windows == 0:
            link(last, self.folder / f"round_{task.rounds:04d}.ckpt")
            self._thin_out()
        if task.validations and task.validations[-1][0] == self.saved:
            losses = [loss for _, loss in task.validations]
            if losses[-1] == min(losses):
                link(last, self.folder / "best.ckpt")

    def _drop_later(self, windows: int) -> None:
        """Where an earlier checkpoint is taken up, those that came after it go."""
        last = self.folder / "last.ckpt"
        if not last.exists() or checkpoint.read(last)["charrnn"]["windows"] <= windows:
            return
        tqdm.write(f"going back to window {windows}: later checkpoints of this run are dropped")
        kept = []
        for file in sorted(self.folder.glob("*.ckpt")):
            ours = checkpoint.read(file)["charrnn"]
            if ours["windows"] > windows:
                file.unlink()
            elif ours["validations"]:
                kept.append((ours["validations"][-1][1], file))
        best = self.folder / "best.ckpt"
        if kept and not best.exists():
            link(min(kept)[1], best)

    def _thin_out(self) -> None:
        rounds = sorted(self.folder.glob("round_*.ckpt"))
        for file in rounds[: -self.keep] if self.keep else []:
            file.unlink()

    def _exit_if_told(self, trainer, number: int | None) -> None:
        if number:
            name = signal.Signals(number).name
            run = shlex.quote(str(trainer.default_root_dir))
            tqdm.write(f"{name}: saved after window {trainer.global_step}; go on with")
            tqdm.write(f"  python train.py resume={run}")
            self.listener.leave(number, first=trainer.is_global_zero)


class AtomicIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it, so that none is ever half written."""

    def save_checkpoint(self, checkpoint_dict, path, storage_options=None) -> None:
        checkpoint.write(checkpoint_dict, path)


def link(file: Path, name: Path) -> None:
    """Give a file a second name, in place of what had that name before; a copy where links fail."""
    scratch = name.with_name(f".{name.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    try:
        os.link(file, scratch)
    except OSError:
        shutil.copyfile(file, scratch)
    os.replace(scratch, name)
