"""Several models that predict together.

T time steps, B rows, V vocabulary size, L layers and H hidden size of a member.
"""

import functools
import math

import torch
from torch import Tensor, nn

from charrnn.models import CharModel


class Ensemble(nn.Module):
    """The mean of the members' probabilities, in the place of one model.

    Each member keeps its own state, so that kinds and sizes may differ: p(c) = mean_k p_k(c)
    (Hansen and Salamon 1990, IEEE Transactions on Pattern Analysis and Machine Intelligence 12,
    993-1001). Dynamic evaluation moves all members by the gradient of the mean's loss.

    Args:
        members: models of one charset, as in :mod:`charrnn.models`.
    """

    def __init__(self, members: list[CharModel]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.sizes = [m.gru.num_layers * m.gru.hidden_size for m in members]

    @property
    def decoder(self) -> nn.Linear:
        """A member's: of as many characters as the ensemble, and where it is."""
        return self.members[0].decoder

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros (1, B, S), where S is the sum of the members' L H."""
        return self.decoder.weight.new_zeros(1, batch_size, sum(self.sizes))

    def outputs(self, inputs: Tensor, state: Tensor) -> tuple[list[Tensor], Tensor]:
        """What each member's last linear layer takes, (T, B, H), and the state (1, B, S) after."""
        outputs, states = [], []
        for member, part in zip(self.members, state[0].split(self.sizes, 1)):
            layers = part.unflatten(1, (member.gru.num_layers, -1)).transpose(0, 1)
            output, layers = member.outputs(inputs, layers.contiguous())
            outputs.append(output)
            states.append(layers.transpose(0, 1).flatten(1))
        return outputs, torch.cat(states, 1)[None]

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (T, B) and state (1, B, S) to log p, (T, B, V), and the state after them."""
        outputs, state = self.outputs(inputs, state)
        each = (m.decoder(o).log_softmax(-1) for m, o in zip(self.members, outputs))
        return functools.reduce(torch.logaddexp, each) - math.log(len(outputs)), state

    nll = CharModel.nll
