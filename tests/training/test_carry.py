"""Carry and roll in a whole training, with a probe whose state is its position in the text.

T time steps in a window, B rows, N characters that train.
"""

import itertools
import math

import pytest
import torch
from helpers import fit
from torch import nn

from charrnn import GRUEncode

T, B, N = 7, 3, 67  # 10 sequences, so that a pass has 4 windows of 3 rows, and is padded
P = math.ceil(math.ceil(N / T) / B)
# All characters differ, so that a character tells its position in the text.
TEXT = "".join(chr(0x4E00 + i) for i in range(75))  # 90% of which train


class Probe(nn.Module):
    """A model whose state, (1, B, 2), is the next index in the text and how many were read."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.windows = []  # expected index, number read, inputs, targets
        self.validations = []

    def initial_state(self, batch_size):
        return torch.zeros(1, batch_size, 2)

    def loss(self, inputs, targets, state):
        assert not state.requires_grad  # detached, although the returned state was not
        self.windows.append((state[0, :, 0].long(), state[0, :, 1].long(), inputs, targets))
        return self.weight**2, self.next_state(inputs, targets, state)

    def nll(self, inputs, targets, state):
        self.validations.append((state[0, :, 0].long(), inputs, targets))
        return torch.ones_like(targets) * self.weight, self.next_state(inputs, targets, state)

    def outputs(self, inputs, state):
        return None, self.next_state(inputs, inputs + 1, state)

    def next_state(self, inputs, targets, state):
        read = state[0, :, 1] + len(inputs)
        # It depends on the weight, as in a model, so that a carry that is not detached would show.
        one = self.weight / self.weight.detach()
        return torch.stack([targets[-1].float(), read], -1)[None] * one


ROUNDS = [
    # limit_train_batches, windows of such a round, rounds
    (1, 1, 13),
    (3, 3, 5),
    (4, 4, 3),
    (5, 5, 3),  # more than a pass
    (11, 11, 2),  # more than two
    (1.0, P, 3),
    (0.5, 2, 7),
    (0.1, 1, 9),  # less than one window counts as one
]
rounds = pytest.mark.parametrize(
    ("limit", "length", "epochs"), ROUNDS, ids=[f"limit_{r[0]}" for r in ROUNDS]
)


def run(tmp_path, rollover, limit, epochs, **trainer):
    probe = Probe()
    task, _ = fit(
        tmp_path, TEXT, probe, task={"rollover": rollover}, data={"batch_size": B, "seq_len": T},
        limit_train_batches=limit, max_epochs=epochs, **trainer,
    )  # fmt: skip
    return probe, task


def row_starts(index):
    """First indices of the rows of a window, by definition; an index is its position plus one."""
    return torch.tensor([(i * P * T + index * T) % N + 1 for i in range(B)])


@rounds
@pytest.mark.parametrize("every", [None, 2], ids=["validates_after", "validates_within"])
@pytest.mark.parametrize("rollover", ["roll", "reset", "carry"])
def test_carry_belongs_to_its_row(tmp_path, rollover, limit, length, epochs, every):
    # With check_val_every_n_epoch=None validation counts windows of all rounds.
    within = {"val_check_interval": every, "check_val_every_n_epoch": None} if every else {}
    probe, task = run(tmp_path, rollover, limit, epochs, **within)
    assert len(probe.windows) == length * epochs and task.rounds == epochs
    count = torch.zeros(B, dtype=torch.int64)
    for number, (expected, read, inputs, _) in enumerate(probe.windows):
        index = number % P
        assert inputs[0].equal(row_starts(index))  # no window is skipped or repeated
        if index == 0 and rollover == "reset":
            count.zero_()
        assert read.equal(count), "a state was lost, or got a window that is not its own"
        if number == 0 or (index == 0 and rollover == "reset"):
            assert not expected.any()
        elif index or rollover == "roll":
            # Row 0 takes the last row's state, which has read past the end of the circle.
            first = 0 if index else 1
            assert expected[first:].equal(inputs[0, first:])
        else:  # "carry": the state stays in its row, and belongs to the next row's text
            assert expected[:-1].equal(inputs[0, 1:])
        if index == 0 and number and rollover == "roll":
            assert expected[0] == probe.windows[number - 1][3][-1, -1]
        count += T
    last = probe.windows[-1]
    assert task.carry.equal(torch.stack([last[3][-1].float(), (last[1] + T).float()], -1)[None])
    assert task.position == {"window": len(probe.windows) % P, "passes": len(probe.windows) // P}
    assert not task.carry.requires_grad


def test_row_zero_continues_if_nothing_is_padded(tmp_path):
    """If B rows of P windows are exactly the text, row 0 continues the last row at its end."""
    text = "".join(chr(0x4E00 + i) for i in range(70))
    probe = Probe()
    fit(tmp_path, text, probe, data={"batch_size": B, "seq_len": T}, max_epochs=5)  # 63 train
    assert len(probe.windows) == 5 * 3
    for expected, _, inputs, _ in probe.windows[1:]:
        assert expected.equal(inputs[0])


def test_validation_has_its_own_state(tmp_path):
    probe, task = run(tmp_path, "roll", 5, 3, val_check_interval=2)
    per_validation = len(probe.validations) // len(task.validations)
    assert len(task.validations) == 1 + 3 * 2  # untrained, and two in each round
    for number, (expected, inputs, _) in enumerate(probe.validations):
        assert expected.equal(inputs[0])  # rows begin with a burn-in
        if number % per_validation == 0:
            assert inputs[0, 0] == N  # the last character that trains


def test_weights_do_not_depend_on_rounds(tmp_path):
    """A model ends with the same weights for one round or many, with validations or without."""
    results = []
    for limit, epochs, every in (
        (12, 1, None),
        (1, 12, None),
        (5, 3, 2),
        (4, 3, None),
        (1.0, 3, 1),
    ):
        torch.manual_seed(0)
        model = GRUEncode(len(TEXT) + 1, 5, 3, backend="torch")
        within = {"val_check_interval": every} if every else {}
        task, _ = fit(
            tmp_path, TEXT, model, task={"l2": 0.1}, data={"batch_size": B, "seq_len": T},
            limit_train_batches=limit, max_epochs=epochs, max_steps=12, **within,
        )  # fmt: skip
        results.append([task.carry, *model.state_dict().values()])
    for first, other in itertools.product(results[:1], results[1:]):
        assert all(a.equal(b) for a, b in zip(first, other))
