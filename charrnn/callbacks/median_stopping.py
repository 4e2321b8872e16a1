"""MedianStopping: ends a job of a sweep early if it does clearly worse than earlier jobs."""

import math
import statistics
from collections.abc import Callable

from pytorch_lightning import Callback

from charrnn.errors import check


class MedianStopping(Callback):
    """The median stopping rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    After a validation, the job ends if its best loss so far is worse than the median, over the
    sweep's finished jobs, of their mean loss up to the same window. Its state is then "stopped",
    and a restarted sweep does not run it again.

    Args:
        after: windows before which no job is stopped.
        jobs: finished jobs that are needed before a job is stopped.
    """

    def __init__(self, after: int = 0, jobs: int = 4):
        check("after", after, after >= 0, "a whole number, at least 0")
        check("jobs", jobs, jobs >= 1, "a whole number, at least 1")
        self.after, self.jobs = after, jobs
        self.finished_curves: Callable[[int], list[list[float]]] = lambda windows: []
        """The validation bpc of each finished job up to a window; set for the jobs of a sweep."""

    def on_validation_end(self, trainer, task) -> None:
        windows = trainer.global_step
        if trainer.sanity_checking or windows < max(1, self.after):
            return
        reason = self.stop_reason(task.validations, windows)
        if trainer.world_size > 1:  # another job may finish between the ranks' reading
            reason = trainer.strategy.broadcast(reason)
        if reason:
            task.stopped = reason
            print(f"stopped {reason}")
            trainer.should_stop = True

    def stop_reason(self, validations: list[list[float]], windows: int) -> str:
        """Return why the job ends at this window; empty if it goes on.

        Args:
            validations: [windows, mean nats] of this job.
        """
        curves = self.finished_curves(windows)
        if len(curves) < self.jobs:
            return ""
        best = min(loss for at, loss in validations if at > 0) / math.log(2)
        median = statistics.median(statistics.fmean(curve) for curve in curves)
        if best <= median:
            return ""
        return (
            f"at window {windows}: its best, {best:.4f} bpc, is worse than the median"
            f" {median:.4f} of {len(curves)} jobs"
        )
