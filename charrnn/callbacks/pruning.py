"""Pruning: ends a job of a search early where the search's pruner says so."""

import math
from collections.abc import Callable

from pytorch_lightning import Callback


class Pruning(Callback):
    """Reports every validation of a job to its search, and ends the job if that prunes it.

    The job's state is then "stopped", and a restarted search does not run it again.

    Args:
        report: takes windows and bits per character, and returns whether the job ends.
        rule: name of the pruner.
    """

    def __init__(self, report: Callable[[int, float], bool], rule: str):
        self.report, self.rule = report, rule
        self.reported = 0

    def on_validation_end(self, trainer, task) -> None:
        windows = trainer.global_step
        if trainer.sanity_checking or not windows:
            return
        # A job that goes on reports what came before, since its trial is a new one.
        curve = [(at, nats / math.log(2)) for at, nats in task.validations if at > 0]
        ends = False
        if trainer.is_global_zero:
            for at, bpc in curve[self.reported :]:
                ends = self.report(at, bpc)
        self.reported = len(curve)
        if trainer.world_size > 1:
            ends = trainer.strategy.broadcast(ends)
        if ends:
            best = min(bpc for _, bpc in curve)
            task.stopped = f"at window {windows} by {self.rule}: its best is {best:.4f} bpc"
            print(f"stopped {task.stopped}")
            trainer.should_stop = True
