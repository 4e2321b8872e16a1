"""MinGRU: gates without the hidden state, trained by a parallel scan over the window.

Feng et al. 2024, "Were RNNs All We Needed?", arXiv:2410.01201: z = sigmoid(W_z x + b_z),
n = g(W_n x + b_n) with g(a) = a + 0.5 for a >= 0 and sigmoid(a) below (appendix B), and
h_t = (1 - z) h_(t-1) + z n. Here without the paper's convolutions and normalizations.

T time steps, B rows, V vocabulary size, H hidden size, L layers.
"""

import torch
from torch import Tensor, nn

from charrnn.errors import check
from charrnn.models.char_model import init_uniform
from charrnn.models.contract import RecurrentModel
from charrnn.models.scan import Scan


class MinGRU(RecurrentModel):
    """An embedding, minimal GRU layers, and a linear layer H -> V; arguments of :class:`LSTM`."""

    VOCAB_AXES = {"embed.weight": 0, "decoder.weight": 0, "decoder.bias": 0}

    def __init__(
        self, vocab_size: int, hidden_size: int = 128, num_layers: int = 2, dropout: float = 0.0
    ):
        check("hidden_size", hidden_size, hidden_size >= 1, "a whole number, at least 1")
        check("num_layers", num_layers, 1 <= num_layers <= 1000, "a whole number from 1 to 1000")
        check("dropout", dropout, 0 <= dropout < 1, "at least 0 and below 1")
        super().__init__()
        self.embed = nn.Embedding(vocab_size, hidden_size)
        self.layers = nn.ModuleList(
            nn.Linear(hidden_size, 2 * hidden_size) for _ in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        init_uniform(self.embed.weight, 1)
        for linear in (*self.layers, self.decoder):
            init_uniform(linear.weight, hidden_size)
            nn.init.zeros_(linear.bias)

    def initial_state(self, batch_size: int) -> Tensor:
        """Return zeros (L, B, H)."""
        weight = self.decoder.weight
        return weight.new_zeros(len(self.layers), batch_size, weight.size(1))

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.run_layers(inputs, state)
        return self.decoder(self.dropout(layers[-1])), torch.stack([h[-1] for h in layers])

    def activations(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Return h of every layer after every character, (L, T, B, H)."""
        return torch.stack(self.run_layers(inputs, state))

    def run_layers(self, inputs: Tensor, state: Tensor) -> list[Tensor]:
        """Return the outputs (T, B, H) of each layer."""
        x, outputs = self.embed(inputs), []
        for linear, h in zip(self.layers, state):
            x = linear(self.dropout(x) if outputs else x)
            z, n = x.to(state.dtype).chunk(2, -1)  # not in 16 bits under autocast
            z, n = torch.sigmoid(z), torch.where(n < 0, torch.sigmoid(n), n + 0.5)
            x = Scan.apply(1 - z, z * n, h)
            outputs.append(x)
        return outputs
