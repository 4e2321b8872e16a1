"""Jobs that differ in nothing but their seed, as one group: mean, deviation, paired difference."""

import math
import statistics
from dataclasses import dataclass

from charrnn.runs.records import DONE
from charrnn.runs.sweep import Job


@dataclass(frozen=True)
class Group:
    """The finished jobs of one setting.

    A difference is paired: of two jobs of the same seed, this group's minus the best group's, over
    the seeds that both have.
    """

    overrides: dict[str, str]
    """Without the seed."""
    best: dict[str, float]
    """The lowest validation bpc of each job, by seed."""
    mean: float
    sd: float
    """Standard deviation of a sample; NaN of a single job."""
    difference: float
    """Mean difference to the best group; NaN of that itself, and without a common seed."""
    error: float
    """Standard error of the difference; NaN of fewer than two pairs."""
    pairs: int

    @property
    def count(self) -> int:
        return len(self.best)


def group_by_seed(jobs: list[Job]) -> list[Group]:
    """Group the finished jobs of a sweep, the lowest mean first.

    Empty unless there are two jobs that differ in nothing but their seed.
    """
    found: dict[tuple, dict[str, float]] = {}
    for job in jobs:
        if job.state in DONE and job.best == job.best:
            setting = tuple(sorted((k, v) for k, v in job.overrides.items() if k != "seed"))
            found.setdefault(setting, {}).setdefault(job.overrides.get("seed", ""), job.best)
    if not any(len(best) > 1 for best in found.values()):
        return []
    ranked = sorted(found.items(), key=lambda item: statistics.fmean(item[1].values()))
    _, lowest = ranked[0]
    groups = []
    for setting, best in ranked:
        pairs = [
            best[seed] - lowest[seed] for seed in best if seed in lowest and best is not lowest
        ]
        values = list(best.values())
        groups.append(
            Group(
                overrides=dict(setting),
                best=best,
                mean=statistics.fmean(values),
                sd=statistics.stdev(values) if len(values) > 1 else math.nan,
                difference=statistics.fmean(pairs) if pairs else math.nan,
                error=statistics.stdev(pairs) / math.sqrt(len(pairs)) if pairs[1:] else math.nan,
                pairs=len(pairs),
            )
        )
    return groups
