"""Ensemble: several models that predict the mean of their probabilities.

T time steps, B rows, V vocabulary size.
"""

import functools
import math

import torch
from torch import Tensor, nn

from charrnn.models.contract import RecurrentModel, advance, batch_dim, run


class Ensemble(RecurrentModel):
    """The mean of the members' probabilities, with the interface of one model.

    p(c) = mean_k p_k(c) (Hansen and Salamon 1990, IEEE Transactions on Pattern Analysis and Machine
    Intelligence 12, 993-1001). Members may be models of any kind and size; the state is a tuple of
    the members' states. Dynamic evaluation updates all members by the gradient of the ensemble's
    loss.

    Args:
        members: models with the same charset.
    """

    resets_documents = True

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.state_batch_dim = tuple(batch_dim(member) for member in members)

    def initial_state(self, batch_size: int) -> tuple:
        """Return the initial states of the members."""
        return tuple(member.initial_state(batch_size) for member in self.members)

    def outputs(self, inputs: Tensor, state: tuple) -> tuple[None, tuple]:
        """Return the final state, without logits."""
        return None, tuple(advance(m, inputs, s) for m, s in zip(self.members, state))

    def forward(self, inputs: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """Return log p, (T, B, V), and the final state, for indices (T, B)."""
        results = [run(member, inputs, part) for member, part in zip(self.members, state)]
        each = (logits.log_softmax(-1) for logits, _ in results)
        mean = functools.reduce(torch.logaddexp, each) - math.log(len(results))
        return mean, tuple(part for _, part in results)
