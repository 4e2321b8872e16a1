"""LSTM: a baseline of ``torch.nn.LSTM`` layers over embedded characters.

T time steps, B rows, V vocabulary size, H hidden size, L layers.
"""

import torch
from torch import Tensor, nn

from charrnn.errors import check
from charrnn.models.char_model import init_uniform
from charrnn.models.contract import RecurrentModel


class LSTM(RecurrentModel):
    """An embedding, LSTM layers (oneDNN on a CPU, cuDNN on a GPU), and a linear layer H -> V.

    Weights start as in :class:`charrnn.models.CharModel`; the bias of the forget gate starts at 1
    (Jozefowicz et al. 2015, section 2.2).

    Args:
        vocab_size: V.
        hidden_size: H.
        num_layers: L.
        dropout: probability of a zero between layers and before the output, never along time.
    """

    VOCAB_AXES = {"embed.weight": 0, "decoder.weight": 0, "decoder.bias": 0}

    def __init__(
        self, vocab_size: int, hidden_size: int = 128, num_layers: int = 2, dropout: float = 0.0
    ):
        check("hidden_size", hidden_size, hidden_size >= 1, "a whole number, at least 1")
        check("num_layers", num_layers, 1 <= num_layers <= 1000, "a whole number from 1 to 1000")
        check("dropout", dropout, 0 <= dropout < 1, "at least 0 and below 1")
        super().__init__()
        self.embed = nn.Embedding(vocab_size, hidden_size)
        # torch warns of a dropout between layers where there is only one.
        between = dropout if num_layers > 1 else 0.0
        self.lstm = nn.LSTM(hidden_size, hidden_size, num_layers, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        init_uniform(self.embed.weight, 1)
        init_uniform(self.decoder.weight, hidden_size)
        nn.init.zeros_(self.decoder.bias)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight"):
                init_uniform(parameter, hidden_size)
            else:
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):  # gates i, f, g, o
                    nn.init.ones_(parameter[hidden_size : 2 * hidden_size])

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Return zeros (L, B, H) for the output h and for the cell c."""
        zeros = self.decoder.weight.new_zeros(
            self.lstm.num_layers, batch_size, self.lstm.hidden_size
        )
        return zeros, zeros.clone()

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor]):
        # Under autocast, cuDNN would keep the state between steps in 16 bits.
        with torch.autocast(inputs.device.type, enabled=False):
            output, state = self.lstm(self.embed(inputs), state)
        return self.decoder(self.dropout(output)), state

    def activations(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        """Return h of every layer after every character, (L, T, B, H)."""
        steps = []
        for index in inputs:
            _, state = self.lstm(self.embed(index[None]), state)
            steps.append(state[0])
        return torch.stack(steps, 1)
