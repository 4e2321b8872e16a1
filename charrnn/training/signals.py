"""Signals that end a run: recorded when they arrive, and acted on between two windows."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

HANGUP = getattr(signal, "SIGHUP", None)
"""A terminal that goes away; Windows has no such signal."""
ENDING = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, HANGUP)))
"""Signals that end a run."""
PATIENCE = 1.0
"""Seconds after a signal until a line says what is finished first."""


class Listener:
    """Records SIGINT, SIGTERM, SIGHUP and requests to requeue; a second signal exits at once.

    A requeue is requested by SIGUSR1 in a SLURM job (``sbatch --signal=USR1@60``), and by
    whichever of SIGUSR1 and SIGUSR2 a launcher handles already (submitit does).

    Args:
        forward: called at once with the number of every signal; then a second one does not exit.
    """

    def __init__(self, forward: Callable[[int], None] | None = None):
        self.forward = forward
        self.may_exit = True
        """Whether a second signal exits at once; otherwise it raises KeyboardInterrupt."""
        self.number: int | None = None
        """The first signal that arrived."""
        self.work = "the window"
        """What is finished before the signal is acted on, for a line where that takes long."""
        self.timer: threading.Timer | None = None
        self.previous: dict[int, object] = {}

    def install(self) -> None:
        """Install the handlers, again for signals that other code has handled since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (*ENDING, *self.requeue_signals()):
            previous = signal.getsignal(number)
            is_ignored = number == HANGUP and previous == signal.SIG_IGN  # by nohup
            if previous != self.record and not is_ignored:
                signal.signal(number, self.record)
                self.previous.setdefault(number, previous)

    def restore(self) -> None:
        """Restore the handlers that were installed before."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
        if self.timer:
            self.timer.cancel()

    def __enter__(self) -> "Listener":
        self.install()
        return self

    def __exit__(self, *exception) -> None:
        self.restore()

    def requeue_signals(self) -> list[int]:
        """The signals that request a requeue in this process."""
        users = [getattr(signal, name, None) for name in ("SIGUSR1", "SIGUSR2")]
        of_slurm = users[:1] if "SLURM_JOB_ID" in os.environ else []
        return [n for n in users if n and (n in of_slurm or callable(signal.getsignal(n)))]

    def record(self, number: int, frame) -> None:
        """The handler of all signals."""
        if self.forward:
            self.forward(number)
        elif self.number and not self.may_exit:
            raise KeyboardInterrupt
        elif self.number:
            os._exit(128 + number)
        else:
            self.timer = threading.Timer(PATIENCE, self._say, [number])
            self.timer.daemon = True
            self.timer.start()
        self.number = self.number or number

    def _say(self, number: int) -> None:
        """Name what a signal waits for."""
        name = signal.Signals(number).name
        line = f"{name}: {self.work} is finished first, and saved; a second signal ends at once"
        print(line, file=sys.stderr, flush=True)

    def exit(self, number: int | None = None, is_rank_zero: bool = True) -> None:
        """Exit with 128 plus the signal's number, after a requeue if the signal requests one.

        Args:
            number: the signal that another rank got; None for the recorded one.
            is_rank_zero: whether this process is the one that calls SLURM.
        """
        number = number or self.number
        if number not in ENDING:
            if callable(launcher := self.previous.get(number)):
                launcher(number, None)  # requeues the job, and may exit
            elif is_rank_zero:
                subprocess.run(["scontrol", "requeue", slurm_job_id()], check=False)
        raise SystemExit(128 + number)


class SignalReduction:
    """Agrees, among the ranks of ``torch.distributed``, on the signal that any of them got."""

    def __init__(self):
        from torch import distributed

        # On the CPU whatever the device, so that no exchange waits for a GPU.
        self.group = distributed.new_group(backend="gloo")
        self.work, self.numbers = None, None

    def exchange(self, number: int | None) -> int:
        """Contribute the signal of this rank; all ranks call this together.

        Returns:
            The largest signal number of the previous exchange, 0 if there was none: one exchange
            late, so that no rank waits for it.
        """
        import torch
        from torch import distributed

        previous = 0
        if self.work:
            self.work.wait()
            previous = int(self.numbers)
        self.numbers = torch.tensor(number or 0)
        largest = distributed.ReduceOp.MAX
        self.work = distributed.all_reduce(self.numbers, largest, self.group, async_op=True)
        return previous


def slurm_job_id() -> str:
    """The id of this SLURM job as scontrol takes it."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env["SLURM_JOB_ID"]
