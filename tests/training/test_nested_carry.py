"""Carry and roll of nested states, with a probe that counts characters; the rest of a task's state.

T time steps in a window, B rows, N characters that train.
"""

import math

import pytest
import torch
from helpers import fit
from other_models import FORMS, Counter
from torch import nn

from charrnn.models import contract
from charrnn.models.state import describe, detach

T, B, N = 7, 3, 67
P = math.ceil(math.ceil(N / T) / B)
# All characters differ, so that a character tells its position in the text.
TEXT = "".join(chr(0x4E00 + i) for i in range(75))  # 90% of which train


class Probe(Counter):
    """Records the states with which windows begin, and what they read."""

    windows: list

    def forward(self, inputs, state):
        if self.training:
            expected, read = self.unpack(state)
            assert not expected.requires_grad and not read.requires_grad
            # The next index of the circle, which is the position plus one.
            expected = (expected.long() - 1) % N + 1 if read.any() else expected.long()
            self.windows.append((expected, read.long(), inputs))
        return super().forward(inputs, state)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rollover", ["roll", "reset", "carry"])
def test_carry_belongs_to_its_row(tmp_path, form, rollover):
    probe = Probe(76, form)
    probe.windows = []
    task, _ = fit(
        tmp_path, TEXT, probe, task={"rollover": rollover}, data={"batch_size": B, "seq_len": T},
        limit_train_batches=3, max_epochs=5,
    )  # fmt: skip
    assert len(probe.windows) == 15
    count = torch.zeros(B, dtype=torch.int64)
    for number, (expected, read, inputs) in enumerate(probe.windows):
        index = number % P
        if index == 0 and rollover == "reset":
            count.zero_()
        assert read.equal(count)
        if number and (index or rollover == "roll"):
            first = 0 if index else 1
            assert expected[first:].equal(inputs[0, first:])
        elif number and rollover == "carry":
            assert expected[:-1].equal(inputs[0, 1:])
        count += T
    assert describe(task.carry) == describe(probe.initial_state(B))


def test_initial_states_may_be_learned(tmp_path):
    """The carry starts from it, a reset returns to it, and a graph is never kept."""

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.ones(1, 1, 4))
            self.decoder = nn.Linear(4, 76)
            self.begun = []

        def initial_state(self, batch_size):
            return self.start.expand(1, batch_size, 4)

        def forward(self, inputs, state):
            assert not state.requires_grad
            self.begun.append(state[0, :, 0])
            steps = torch.arange(1, len(inputs) + 1)[:, None, None] * state.new_ones(4)
            return self.decoder(state + steps), state + len(
                inputs
            ) * self.start / self.start.detach()

    model = Learned()
    fit(
        tmp_path, TEXT, model, task={"rollover": "reset"}, data={"batch_size": B, "seq_len": T},
        limit_train_batches=P + 1, max_epochs=1, limit_val_batches=0,
    )  # fmt: skip
    assert model.begun[0].equal(torch.ones(B)) and model.begun[1].equal(torch.ones(B) + T)
    assert model.begun[P].equal(model.start.detach().flatten()[:1].expand(B))


def test_the_carry_keeps_its_type():
    before = {"h": torch.zeros(1, 2, 3), "n": torch.zeros(1, 2, dtype=torch.int64)}
    after = {"h": torch.ones(1, 2, 3, dtype=torch.bfloat16), "n": torch.ones(1, 2)}
    found = detach(after, before)
    assert (found["h"].dtype, found["n"].dtype) == (torch.float32, torch.int64)


def test_a_module_of_the_name_of_a_method_is_none():
    """As in a model that keeps its loss function as ``self.loss``."""
    model = Counter(11, "dict")
    model.loss = model.activations = nn.CrossEntropyLoss()
    inputs = torch.randint(0, 11, (5, 2))
    loss, _ = contract.loss(model, inputs, inputs, model.initial_state(2))
    nats, _ = contract.nll(model, inputs, inputs, model.initial_state(2))
    torch.testing.assert_close(loss, nats.mean())
    assert contract.method(model, "activations") is None
