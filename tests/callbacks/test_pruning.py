"""Pruning: what is reported to a search, and when a job ends."""

import math

import pytest

from charrnn.callbacks import Pruning


class Trainer:
    sanity_checking, world_size, is_global_zero = False, 1, True

    def __init__(self, windows):
        self.global_step, self.should_stop = windows, False


class Task:
    stopped = ""

    def __init__(self, *curve):
        self.validations = [[0, 9.0], *([at, bpc * math.log(2)] for at, bpc in curve)]


def test_each_validation_is_reported_once():
    """Also those of before a job was resumed; the last of them decides."""
    reported = []
    callback = Pruning(lambda *point: reported.append(point), "MedianPruner")
    callback.on_validation_end(Trainer(0), Task())
    for curve in ([(10, 3.0), (20, 2.0)], [(10, 3.0), (20, 2.0), (30, 4.0)]):
        callback.on_validation_end(trainer := Trainer(curve[-1][0]), Task(*curve))
        assert not trainer.should_stop
    assert [at for at, _ in reported] == [10, 20, 30]
    assert [bpc for _, bpc in reported] == pytest.approx([3, 2, 4])


def test_a_pruned_job_is_stopped():
    callback = Pruning(lambda windows, bpc: windows == 20, "MedianPruner")
    trainer, task = Trainer(20), Task((10, 3.0), (20, 4.0))
    callback.on_validation_end(trainer, task)
    assert trainer.should_stop
    assert task.stopped == "at window 20 by MedianPruner: its best is 3.0000 bpc"
