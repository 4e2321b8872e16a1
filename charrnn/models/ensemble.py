"""Ensemble: several models that predict the mean of their probabilities.

T time steps, B rows, V vocabulary size, L layers and H hidden size of a member.
"""

import functools
import math

import torch
from torch import Tensor, nn

from charrnn.models.char_model import CharModel


class Ensemble(nn.Module):
    """The mean of the members' probabilities, with the interface of one model.

    p(c) = mean_k p_k(c) (Hansen and Salamon 1990, IEEE Transactions on Pattern Analysis and Machine
    Intelligence 12, 993-1001). Members may differ in kind and size; the state holds the states of
    all members. Dynamic evaluation updates all members by the gradient of the ensemble's loss.

    Args:
        members: models with the same charset.
    """

    def __init__(self, members: list[CharModel]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.sizes = [m.gru.num_layers * m.gru.hidden_size for m in members]

    @property
    def decoder(self) -> nn.Linear:
        """The decoder of the first member, for its device, type and vocabulary size."""
        return self.members[0].decoder

    def initial_state(self, batch_size: int) -> Tensor:
        """Return zeros (1, B, S), where S is the sum of the members' L H."""
        return self.decoder.weight.new_zeros(1, batch_size, sum(self.sizes))

    def outputs(self, inputs: Tensor, state: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the inputs (T, B, H) of each member's last layer and the final state (1, B, S)."""
        outputs, states = [], []
        for member, part in zip(self.members, state[0].split(self.sizes, 1)):
            layers = part.unflatten(1, (member.gru.num_layers, -1)).transpose(0, 1)
            output, layers = member.outputs(inputs, layers.contiguous())
            outputs.append(output)
            states.append(layers.transpose(0, 1).flatten(1))
        return outputs, torch.cat(states, 1)[None]

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p, (T, B, V), and the final state (1, B, S), for indices (T, B)."""
        outputs, state = self.outputs(inputs, state)
        each = (m.decoder(o).log_softmax(-1) for m, o in zip(self.members, outputs))
        return functools.reduce(torch.logaddexp, each) - math.log(len(outputs)), state

    nll = CharModel.nll
