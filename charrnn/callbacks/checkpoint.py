"""Checkpoint: saves between windows, and when a signal ends the run."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback
from pytorch_lightning.utilities.model_helpers import is_overridden
from tqdm import tqdm

from charrnn.callbacks.loggers import flush, to_loggers
from charrnn.checkpoint import read
from charrnn.checkpoint.files import link
from charrnn.checkpoint.serialization import save
from charrnn.data.waiting import say_if_slow
from charrnn.errors import InputError, check, escape_control, shell_command
from charrnn.training.lightning_internals import disable_sigterm_broadcast
from charrnn.training.signals import Listener, SignalReduction


class Checkpoint(Callback):
    """Maintains RUN/checkpoints: last.ckpt, best.ckpt and round_NNNN.ckpt (0000 is untrained).

    The file that last.ckpt replaced is previous.ckpt, in case last.ckpt is damaged.

    Checkpoints are saved before a window starts, after the validation and the end of a round that
    follow the previous window: each holds a state between two windows.

    SIGINT, SIGTERM and SIGHUP finish the window (and a validation due after it), save, and exit
    with 128 plus the signal's number; during the untrained validation there is nothing to save.
    After a second a line says what is finished first; a second signal exits at once. A signal that
    requests a requeue does the same and requeues the job. One rank getting the signal is enough.

    Args:
        every_n_steps: windows between two checkpoints, in addition to those after rounds.
        keep: number of round_NNNN.ckpt files that stay; None keeps all.
        on_error: if a checkpoint cannot be written, as on a full disk, "retry" goes on training
            and tries again with the next one, "stop" ends the run. The last checkpoint stays in
            both cases, and a run whose end cannot be saved ends with an error.
    """

    program: str = "python train.py"
    """The command, quoted for a shell, that resumes the run; printed after a signal."""
    program_arguments: Sequence[str] = ()
    """Arguments that the command needs besides ``resume=RUN``."""
    resume_command: str = ""
    """The whole command, in place of these."""

    def __init__(self, every_n_steps: int = 500, keep: int | None = None, on_error: str = "retry"):
        check("every_n_steps", every_n_steps, every_n_steps >= 1, "a whole number, at least 1")
        check("keep", keep, keep is None or keep >= 1, "a whole number, at least 1, or null")
        check("on_error", on_error, on_error in ("retry", "stop"), "retry or stop")
        self.every_n_steps, self.keep, self.on_error = every_n_steps, keep, on_error
        self.listener = Listener()
        self.reduction: SignalReduction | None = None  # of several ranks
        self.saved: int | None = None  # windows in the last checkpoint

    def setup(self, trainer, task, stage: str) -> None:
        trainer.strategy.checkpoint_io = AtomicIO()
        self.folder = Path(trainer.default_root_dir) / "checkpoints"
        self.listener.install()

    def on_sanity_check_start(self, trainer, task) -> None:
        self.listener.install()  # again: Lightning has installed its own handler after setup

    def on_train_start(self, trainer, task) -> None:
        self.listener.install()
        if trainer.world_size > 1:
            self.reduction = SignalReduction()
            disable_sigterm_broadcast(trainer)
        self.due = True  # untrained, or as resumed

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        self.due |= trainer.global_step % self.every_n_steps == 0

    def on_validation_start(self, trainer, task) -> None:
        self.listener.work = "the validation"

    def on_validation_batch_end(
        self, trainer, task, outputs, batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Nothing is trained yet; with several ranks the others would wait.
        if trainer.sanity_checking and self.listener.number and trainer.world_size == 1:
            self._exit_on_signal(trainer, self.listener.number, "before the first window")

    def on_validation_end(self, trainer, task) -> None:
        self.listener.work = "the window"
        self.due = True

    def on_train_epoch_end(self, trainer, task) -> None:
        self.due = True

    def on_train_batch_start(self, trainer, task, batch, batch_idx: int) -> None:
        number = self.listener.number
        if self.reduction:
            number = self.reduction.exchange(number)
        if self.due or number:
            self._save(trainer, task, self.on_error if not number else "stop")
            self.due = False
        self._exit_on_signal(trainer, number)

    def on_train_end(self, trainer, task) -> None:
        self._save(trainer, task, "stop")
        number = self.listener.number
        if self.reduction:
            self.reduction.exchange(number)
            number = self.reduction.exchange(None)
        self._exit_on_signal(trainer, number)

    def on_exception(self, trainer, task, exception) -> None:
        self.listener.restore()

    def teardown(self, trainer, task, stage: str) -> None:
        # After the last hooks of the others, which may have changed the weights.
        last = self.folder / "last.ckpt"
        if trainer.is_global_zero and any(map(acts_at_the_end, trainer.callbacks)):
            with self._one_line(trainer, "stop"):
                if self.saved is not None and last.exists():
                    replace_weights(last, task.state_dict())
        self.listener.restore()

    def _save(self, trainer, task, on_error: str) -> None:
        if self.saved == trainer.global_step or trainer.fast_dev_run:
            return
        # Curves up to this window must be on disk before it, or a kill would leave a gap.
        to_loggers(trainer, flush)
        with self._one_line(trainer, on_error):
            with say_if_slow(f"saving the checkpoint of window {trainer.global_step}"):
                self._write(trainer, task)

    @contextlib.contextmanager
    def _one_line(self, trainer, on_error: str) -> Iterator[None]:
        """Print why a checkpoint cannot be written, or raise that as an InputError."""
        try:
            yield
        except OSError as error:
            last = "none" if self.saved is None else f"that of window {self.saved}"
            line = (
                f"{self.folder}: window {trainer.global_step} cannot be saved"
                f" ({error.strerror}); the last checkpoint is {last}"
            )
            if on_error == "stop":
                raise InputError(f"{line}; make room, and resume with resume=RUN") from error
            tqdm.write(f"{escape_control(line)}; training goes on and will try again")

    def _write(self, trainer, task) -> None:
        """Save by all ranks together. Rank zero writes, and raises OSError if it cannot."""
        last = self.folder / "last.ckpt"
        io = trainer.strategy.checkpoint_io
        io.error = None
        trainer.save_checkpoint(last)
        if io.error is not None:
            raise io.error
        if not trainer.is_global_zero:
            self.saved = trainer.global_step
            return
        if task.round_windows == 0:
            link(last, self.folder / f"round_{task.rounds:04d}.ckpt")
            self._remove_old_rounds()
        self.saved = trainer.global_step
        if task.validations and task.validations[-1][0] == self.saved:
            if task.validations[-1][1] == task.validations.best:
                link(last, self.folder / "best.ckpt")

    def _remove_old_rounds(self) -> None:
        rounds = sorted(self.folder.glob("round_*.ckpt"))
        for file in rounds[: -self.keep] if self.keep else []:
            file.unlink()

    def _exit_on_signal(self, trainer, number: int | None, when: str = "") -> None:
        if number:
            name = signal.Signals(number).name
            arguments = [f"resume={trainer.default_root_dir}", *self.program_arguments]
            command = self.resume_command or f"{self.program} {shell_command(arguments)}"
            when = when or f"saved after window {trainer.global_step}"
            tqdm.write(f"{name}: {when}; resume with")
            tqdm.write(escape_control(f"  {command}"))
            self.listener.exit(number, trainer.is_global_zero)


def acts_at_the_end(callback: Callback) -> bool:
    """Whether a callback from elsewhere has a hook that may change the weights at the end."""
    is_ours = type(callback).__module__.startswith("charrnn.")
    hooks = ("on_train_end", "on_fit_end")
    return not is_ours and any(is_overridden(name, callback, Callback) for name in hooks)


def replace_weights(file: Path, weights: dict[str, torch.Tensor]) -> None:
    """Replace the weights in a checkpoint if they are others.

    The rest stays as it was saved: when training has ended, the optimizer has left its device.
    """
    saved = read(file)
    before = saved["state_dict"]
    if before.keys() != weights.keys() or not all(
        torch.equal(before[name], weights[name].cpu()) for name in weights
    ):
        save(saved | {"state_dict": weights}, file, file.with_name("previous.ckpt"))


class AtomicIO(TorchCheckpointIO):
    """Writes checkpoints atomically, and keeps the replaced one as previous.ckpt.

    Errors are kept and not raised, because the other ranks wait until this one returns.
    """

    error: OSError | None = None
    """Why the checkpoint, or metrics.csv before it, could not be written."""

    def save_checkpoint(self, checkpoint_dict, path, storage_options=None) -> None:
        if self.error is not None:
            return
        try:
            save(checkpoint_dict, path, Path(path).with_name("previous.ckpt"))
        except OSError as error:
            self.error = error
