"""Signals that end a run: noted when they come, and answered between two windows."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable


class Listener:
    """Notes SIGINT and SIGTERM, and those that ask for a requeue; a second one exits at once.

    A requeue is asked for by SIGUSR1 in a job of SLURM (``sbatch --signal=USR1@60``), and by
    whichever of SIGUSR1 and SIGUSR2 a launcher listens to (submitit does).

    Args:
        hand_on: called at once with the number of every signal; then a second one does not exit.
    """

    def __init__(self, hand_on: Callable[[int], None] | None = None):
        self.hand_on = hand_on
        self.number: int | None = None
        self.before: dict[int, object] = {}

    def listen(self) -> None:
        """Take the signals, again where somebody else has taken them since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, *self.requeuing()):
            if (before := signal.getsignal(number)) != self.note:
                signal.signal(number, self.note)
                self.before.setdefault(number, before)

    def stop(self) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def __enter__(self) -> "Listener":
        self.listen()
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def requeuing(self) -> list[int]:
        """The signals that ask for a requeue here."""
        asked = [getattr(signal, name, None) for name in ("SIGUSR1", "SIGUSR2")]
        by_slurm = asked[:1] if "SLURM_JOB_ID" in os.environ else []
        return [n for n in asked if n and (n in by_slurm or callable(signal.getsignal(n)))]

    def note(self, number: int, frame) -> None:
        if self.hand_on:
            self.hand_on(number)
        elif self.number:
            os._exit(128 + number)
        self.number = self.number or number

    def leave(self, number: int | None = None, first: bool = True) -> None:
        """Exit with 128 plus the signal's number, after a requeue where it asks for one.

        Args:
            number: of the signal, where another process got it.
            first: whether this is the process that asks SLURM.
        """
        number = number or self.number
        if number not in (signal.SIGINT, signal.SIGTERM):
            if callable(launcher := self.before.get(number)):
                launcher(number, None)  # which queues the job again, and may exit
            elif first:
                subprocess.run(["scontrol", "requeue", slurm_job()], check=False)
        raise SystemExit(128 + number)


class Agreement:
    """The signal that any process of torch.distributed got, the same in all of them."""

    def __init__(self):
        from torch import distributed

        # On the CPU whatever the device, so that asking waits for no GPU.
        self.group = distributed.new_group(backend="gloo")
        self.work, self.numbers = None, None

    def ask(self, number: int | None) -> int:
        """Tell the others this process's signal; 0 or the signal that was told at the last asking.

        All processes ask together. The answer is one asking old, so that nobody waits for it.
        """
        import torch
        from torch import distributed

        told = 0
        if self.work:
            self.work.wait()
            told = int(self.numbers)
        self.numbers = torch.tensor(number or 0)
        greatest = distributed.ReduceOp.MAX
        self.work = distributed.all_reduce(self.numbers, greatest, self.group, async_op=True)
        return told


def slurm_job() -> str:
    """The job's name for scontrol."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env["SLURM_JOB_ID"]
