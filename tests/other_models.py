"""Models of other kinds for tests: states of every nesting, and a probe that counts characters.

``COUNTERS`` are variants of one probe whose state is the next index of the text and how many were
read, in a tensor, a named tuple, a dict or a deeper nesting, with the rows where each has them. As
a class of another package (``PROBE`` is the source of one) it can be trained by a command line.
"""

from collections import namedtuple

import torch
from torch import nn

Pair = namedtuple("Pair", "expected read")


class Counter(nn.Module):
    """A plain module with ``initial_state`` and ``forward``; the logits depend on the state."""

    def __init__(self, vocab_size, form="tensor"):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size))
        self.form = form
        if form == "batch_first":
            self.state_batch_dim = 0
        elif form == "nested":
            self.state_batch_dim = (1, {"b": 0, "c": 2})

    def pack(self, expected, read):
        """Make a state of two float vectors (B,)."""
        if self.form == "tensor":
            return torch.stack([expected, read], -1)[None]
        if self.form == "batch_first":
            return torch.stack([expected, read], -1)
        if self.form == "tuple":
            return Pair(expected[None], read[None, :, None])
        if self.form == "dict":
            return {"read": [read[None]], "expected": expected[None, :, None]}
        return [expected[None], {"b": (read,), "c": read.long()[None, None]}]

    def unpack(self, state):
        """Return the two vectors of a state."""
        if self.form == "tensor":
            return state[0, :, 0], state[0, :, 1]
        if self.form == "batch_first":
            return state[:, 0], state[:, 1]
        if self.form == "tuple":
            return state.expected[0], state.read[0, :, 0]
        if self.form == "dict":
            return state["expected"][0, :, 0], state["read"][0][0]
        assert state[1]["c"][0, 0].equal(state[1]["b"][0].long())
        return state[0][0], state[1]["b"][0]

    def initial_state(self, batch_size):
        zeros = self.weight.new_zeros(batch_size)
        return self.pack(zeros, zeros)

    def forward(self, inputs, state):
        expected, read = self.unpack(state)
        steps = read + torch.arange(1, len(inputs) + 1, device=read.device)[:, None]
        one = self.weight[0] / self.weight[0].detach()  # a carry that is not detached would show
        before = torch.cat([expected[None], inputs[:-1] + 1])
        phase = (steps.remainder(13) + inputs.remainder(5) + 0.1 * before.remainder(17))[..., None]
        logits = torch.cos(phase * self.weight) * 2
        return logits, self.pack((inputs[-1] + 1) * one, steps[-1] * one)


class Idle(Counter):
    """A model with a parameter that gets no gradient."""

    def __init__(self, vocab_size, hidden_size=3):
        super().__init__(vocab_size)
        self.idle = nn.Parameter(torch.zeros(hidden_size))


FORMS = ("tensor", "batch_first", "tuple", "dict", "nested")
