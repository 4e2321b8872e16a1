"""Validations over different texts are not compared."""

import math

import pytest
from torch.optim.lr_scheduler import ReduceLROnPlateau

from charrnn.training.schedulers import Adaptive
from charrnn.training.validation import Validations, forget_losses


def test_only_validations_over_the_same_text_are_compared():
    validations = Validations()
    assert validations.best == math.inf
    assert validations.add(0, 1.0, 7)
    assert not validations.add(5, 3.0, 100) and validations.add(10, 2.0, 100)
    assert validations.best == 2.0 and validations.comparable == [[5, 3.0], [10, 2.0]]
    again = Validations.from_state(validations.state_dict())
    assert again == validations and again.best == 2.0
    assert not again.add(15, 2.5, 101) and again.best == 2.5


def test_those_of_older_checkpoints_are_taken_for_comparable():
    validations = Validations.from_state({"validations": [[0, 4.0], [5, 2.0]]})
    assert validations.add(10, 3.0, 50) and validations.best == 2.0
    assert not validations.add(15, 3.0, 60)


@pytest.mark.parametrize("kind", [Adaptive, ReduceLROnPlateau])
def test_schedulers_that_compare_losses_begin_again(kind):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = kind(optimizer) if kind is Adaptive else kind(optimizer, patience=0)
    scheduler.step(1.0)
    forget_losses(scheduler)
    scheduler.step(9.0)
    assert optimizer.param_groups[0]["lr"] == 1.0
    scheduler.step(9.5)
    assert optimizer.param_groups[0]["lr"] < 1.0
