"""StopWorse: ends a job of a sweep that does clearly worse than those before it."""

import math
import statistics
from collections.abc import Callable

from pytorch_lightning import Callback

from charrnn.errors import check


class StopWorse(Callback):
    """The median stopping rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    After a validation, a job ends if its best loss so far is worse than the median of what the
    sweep's finished jobs had on average up to the same window. It counts as stopped, and a sweep
    that is started again leaves it at that.

    Args:
        after: windows before which no job is stopped.
        jobs: how many jobs must have finished before any is stopped.
    """

    def __init__(self, after: int = 0, jobs: int = 4):
        check("after", after, after >= 0, "a whole number, at least 0")
        check("jobs", jobs, jobs >= 1, "a whole number, at least 1")
        self.after, self.jobs = after, jobs
        self.finished: Callable[[int], list[list[float]]] = lambda windows: []
        """The validation bpc of each finished job of the sweep up to a window; set by the sweep."""

    def on_validation_end(self, trainer, task) -> None:
        windows = trainer.global_step
        if trainer.sanity_checking or windows < max(1, self.after):
            return
        stopped = self.reason(trainer, task, windows)
        if trainer.world_size > 1:  # one decides, or a job that finishes meanwhile would part them
            stopped = trainer.strategy.broadcast(stopped)
        if stopped:
            task.stopped = stopped
            print(f"stopped {stopped}")
            trainer.should_stop = True

    def reason(self, trainer, task, windows: int) -> str:
        """Why the job ends here; empty where it goes on."""
        curves = self.finished(windows)
        if len(curves) < self.jobs:
            return ""
        best = min(loss for at, loss in task.validations if at > 0) / math.log(2)
        median = statistics.median(statistics.fmean(curve) for curve in curves)
        if best <= median:
            return ""
        return (
            f"at window {windows}: its best, {best:.4f} bpc, is worse than the median"
            f" {median:.4f} of {len(curves)} jobs"
        )
