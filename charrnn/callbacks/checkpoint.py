"""Checkpoint: saves between windows, and when somebody ends the run."""

import contextlib
import shlex
import signal
from pathlib import Path

from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback
from tqdm import tqdm

from charrnn import checkpoint
from charrnn.callbacks.metrics import flush, to_loggers
from charrnn.checkpoint.files import link
from charrnn.checkpoint.serialization import save
from charrnn.errors import InputError, check, escape_control
from charrnn.training import lightning_loops as loops
from charrnn.training import signals


class Checkpoint(Callback):
    """Keeps RUN/checkpoints: last.ckpt, best.ckpt, and round_NNNN.ckpt, 0000 being untrained.

    What was the last one before is previous.ckpt, for when last.ckpt turns out damaged.

    Saved is before the next window starts, when the validation and the end of a round that belong
    to the window before it have happened: every file is a state between two windows.

    SIGINT and SIGTERM finish the window (and a validation that it is due), save, and exit with 128
    plus the signal's number; a second one exits at once. One that asks for a requeue does the same,
    and the job is queued again. Of several processes it is enough that one gets the signal.

    Args:
        every_n_steps: windows between two savings, besides those after rounds.
        keep: how many rounds' files stay; None keeps all.
        on_error: what becomes of the run where a checkpoint cannot be written, as on a full disk:
            "retry" goes on and tries again with the next one, "stop" ends it. The last checkpoint
            stays; and a run whose end cannot be saved ends with an error.
    """

    def __init__(self, every_n_steps: int = 500, keep: int | None = None, on_error: str = "retry"):
        check("every_n_steps", every_n_steps, every_n_steps >= 1, "a whole number, at least 1")
        check("keep", keep, keep is None or keep >= 1, "a whole number, at least 1, or null")
        check("on_error", on_error, on_error in ("retry", "stop"), "retry or stop")
        self.every_n_steps, self.keep, self.on_error = every_n_steps, keep, on_error
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
            self._save(trainer, task, self.on_error if not number else "stop")
            self.due = False
        self._exit_if_told(trainer, number)

    def on_train_end(self, trainer, task) -> None:
        self._save(trainer, task, "stop")
        number = self.listener.number
        if self.agreement:
            self.agreement.ask(number)
            number = self.agreement.ask(None)
        self._exit_if_told(trainer, number)

    def on_exception(self, trainer, task, exception) -> None:
        self.teardown(trainer, task, "fit")

    def teardown(self, trainer, task, stage: str) -> None:
        self.listener.stop()

    def _save(self, trainer, task, on_error: str) -> None:
        if self.saved == trainer.global_step:
            return
        # What a checkpoint has seen must be on disk before it, or a kill would lose it.
        to_loggers(trainer, flush)
        try:
            self._write(trainer, task)
        except OSError as error:
            stays = "none" if self.saved is None else f"that of window {self.saved}"
            line = (
                f"{self.folder}: window {trainer.global_step} cannot be saved"
                f" ({error.strerror}); the last checkpoint is {stays}"
            )
            if on_error == "stop":
                raise InputError(f"{line}; make room, and go on with resume=RUN") from error
            tqdm.write(f"{escape_control(line)}; training goes on, and the next one is tried")

    def _write(self, trainer, task) -> None:
        """Save, by all processes together; the first alone writes. Raises OSError in that."""
        last = self.folder / "last.ckpt"
        saving = trainer.strategy.checkpoint_io
        saving.error = None
        trainer.save_checkpoint(last)
        if saving.error is not None:
            raise saving.error
        if not trainer.is_global_zero:
            self.saved = trainer.global_step
            return
        if task.round_windows == 0:
            link(last, self.folder / f"round_{task.rounds:04d}.ckpt")
            self._thin_out()
        self.saved = trainer.global_step
        if task.validations and task.validations[-1][0] == self.saved:
            losses = [loss for _, loss in task.validations]
            if losses[-1] == min(losses):
                link(last, self.folder / "best.ckpt")

    def _thin_out(self) -> None:
        rounds = sorted(self.folder.glob("round_*.ckpt"))
        for file in rounds[: -self.keep] if self.keep else []:
            file.unlink()

    def _exit_if_told(self, trainer, number: int | None) -> None:
        if number:
            name = signal.Signals(number).name
            run = escape_control(shlex.quote(str(trainer.default_root_dir)))
            tqdm.write(f"{name}: saved after window {trainer.global_step}; go on with")
            tqdm.write(f"  python train.py resume={run}")
            self.listener.leave(number, first=trainer.is_global_zero)


class AtomicIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it, so that none is ever half written.

    What goes wrong is kept and not raised: other processes wait until this one comes back.
    """

    error: OSError | None = None

    def save_checkpoint(self, checkpoint_dict, path, storage_options=None) -> None:
        if self.error is not None:  # of what must be on disk before it
            return
        try:
            save(checkpoint_dict, path, Path(path).with_name("previous.ckpt"))
        except OSError as error:
            self.error = error


def go_back(folder: Path, file: Path) -> None:
    """Make a checkpoint of a folder its last one; those of later windows go.

    At every moment last.ckpt is one from which the run goes on.
    """
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    if file.parent != folder or file == last:
        return
    windows = checkpoint.read(file)["charrnn"]["windows"]
    whole = {}
    for other in sorted(folder.glob("*.ckpt")):
        with contextlib.suppress(InputError):
            whole[other] = checkpoint.read(other)["charrnn"]
    later = {other for other, ours in whole.items() if ours["windows"] > windows}
    if later:
        tqdm.write(f"going back to window {windows}: later checkpoints of this run are dropped")
    link(file, last)
    for other in later - {last}:
        other.unlink()
    kept = [(ours["validations"][-1][1], other) for other, ours in whole.items()
            if other not in later and ours["validations"]]  # fmt: skip
    if kept and best not in whole.keys() - later:
        link(min(kept)[1], best)
