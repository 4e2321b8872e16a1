"""MedianStopping: the rule, and when it applies."""

import math

import pytest

from charrnn import InputError
from charrnn.callbacks import MedianStopping

CURVES = [[4.0, 2.0], [3.0], [5.0, 5.0]]  # of means 3, 3 and 5


def nats(bpc):
    return bpc * math.log(2)


@pytest.mark.parametrize(
    ("curves", "best", "stops"),
    [(CURVES, 3.1, True), (CURVES, 2.9, False), (CURVES[:2], 9.0, False), ([], 9.0, False)],
)
def test_stops_if_best_is_worse_than_the_median(curves, best, stops):
    callback = MedianStopping(jobs=3)
    callback.finished_curves = lambda windows: curves
    validations = [[0, nats(1.0)], [10, nats(best)], [20, nats(best + 1)]]  # 0 is untrained
    reason = callback.stop_reason(validations, 20)
    assert bool(reason) == stops
    if stops:
        assert reason == (
            "at window 20: its best, 3.1000 bpc, is worse than the median 3.0000 of 3 jobs"
        )


@pytest.mark.parametrize(("windows", "stops"), [(0, False), (19, False), (20, True)])
def test_stops_after_enough_windows(windows, stops):
    class Trainer:
        global_step, sanity_checking, world_size, should_stop = windows, False, 1, False

    class Task:
        validations, stopped = [[10, nats(9.0)]], ""

    callback = MedianStopping(after=20, jobs=1)
    callback.finished_curves = lambda windows: CURVES
    callback.on_validation_end(Trainer, Task)
    assert Trainer.should_stop == stops == bool(Task.stopped)


@pytest.mark.parametrize("bad", [{"after": -1}, {"jobs": 0}], ids=str)
def test_arguments_out_of_range(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        MedianStopping(**bad)
