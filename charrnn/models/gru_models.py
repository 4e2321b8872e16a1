"""The two character models of the 2016 program: GRUEncode and GRUResize.

T time steps, B rows, V vocabulary size, H hidden size, L layers. State goes in and comes out.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.errors import check
from charrnn.gru import GRU


class CharModel(nn.Module):
    """What both models share: GRU layers, dropout, and a linear layer H -> V.

    To try another model, write a subclass here and name it in ``conf/model``.

    Args:
        vocab_size: V, the unknown character included.
        dropout: probability of a zero between layers and before the output, never along time.
        reset, gate, backend: as in :class:`charrnn.gru.GRU`.
        parameters: in place of ``hidden_size``, a number of parameters in all; the hidden size is
            the largest with which the model has no more. Raises InputError where even 1 has more.
    """

    BY_CHARACTER = {"decoder.weight": 0, "decoder.bias": 0}
    """Parameters with a slice for each character of the vocabulary, and its axis."""

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        reset: str = "after",
        gate: str = "sigmoid",
        backend: str = "auto",
        parameters: int | None = None,
    ):
        check("vocab_size", vocab_size, vocab_size >= 1, "a whole number, at least 1")
        if parameters is not None:
            settings = (num_layers, dropout, reset, gate, "reference")
            hidden_size = self.largest_within(parameters, vocab_size, *settings)
        check("hidden_size", hidden_size, hidden_size >= 1, "a whole number, at least 1")
        super().__init__()
        self.boundary: int | None = None
        """The character before which the state of its row is reset; None where there is none."""
        input_size = self.add_input_layer(vocab_size, hidden_size)
        self.gru = GRU(input_size, hidden_size, num_layers, dropout, reset, gate, backend)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        uniform_fan_in(self.decoder.weight, hidden_size)
        nn.init.zeros_(self.decoder.bias)

    @classmethod
    def largest_within(cls, parameters: int, vocab_size: int, *settings) -> int:
        """The largest hidden size with at most so many parameters."""

        def count(hidden_size: int) -> int:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                model = cls(vocab_size, hidden_size, *settings)
            return sum(p.numel() for p in model.parameters())

        fewest = count(1)
        check("parameters", parameters, parameters >= fewest, f"at least {fewest} for this model")
        # Each unit brings more than V parameters, so that no size beyond has so few.
        low, high = 1, 1 + parameters // vocab_size
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count(middle) <= parameters else (low, middle - 1)
        return low

    def add_input_layer(self, vocab_size: int, hidden_size: int) -> int:
        """Make what stands before the GRU; returns the GRU's input size."""
        raise NotImplementedError

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The inputs and the table that ``GRU.forward`` takes, from indices (T, B)."""
        raise NotImplementedError

    def resets(self, inputs: Tensor) -> Tensor | None:
        """Where documents begin, (T, B) bool; None where a text is not made of them."""
        return None if self.boundary is None else inputs == self.boundary

    def outputs(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """What the last linear layer takes, (T, B, H), and the state (L, B, H) after a window."""
        resets = self.resets(inputs)
        inputs, table = self.features(inputs)
        output, state = self.gru(inputs, state, table, resets)
        return self.dropout(output), state

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (T, B) and state (L, B, H) to logits (T, B, V) and the state after them."""
        output, state = self.outputs(inputs, state)
        return self.decoder(output), state

    def nll(self, inputs: Tensor, targets: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The nats of every target, (T, B), and the state (L, B, H) after the window."""
        logits, state = self(inputs, state)
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return nats.view_as(targets), state

    def loss(self, inputs: Tensor, targets: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The mean nats per character, and the state (L, B, H) after the window."""
        output, state = self.outputs(inputs, state)
        output, targets = output.flatten(0, 1), targets.flatten()
        if self.gru.choose_backend(output.device) == "native":
            from charrnn.gru.loss import linear_cross_entropy

            weight, bias = self.decoder.weight, self.decoder.bias
            return linear_cross_entropy(output, weight, bias, targets), state
        return F.cross_entropy(self.decoder(output), targets), state

    def activations(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Every unit's output at every character, (L, T, B, H)."""
        resets = self.resets(inputs)
        inputs, table = self.features(inputs)
        return self.gru.layers(inputs, state, table, resets)

    def gates(self, inputs: Tensor, state: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Every unit's reset and update gate at every character, each (L, T, B, H).

        Args:
            activations: what :meth:`activations` returned for the inputs and the state.
        """
        resets = self.resets(inputs)
        inputs, table = self.features(inputs)
        return self.gru.gates(activations, inputs, state, table, resets)

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros (L, B, H), where the parameters are."""
        size = (self.gru.num_layers, batch_size, self.gru.hidden_size)
        return self.decoder.weight.new_zeros(size)


class GRUEncode(CharModel):
    """A tanh layer over the characters, then GRU layers; the default of the 2016 program."""

    plain_gru = True
    plain_gru = True
    BY_CHARACTER = CharModel.BY_CHARACTER | {"embed.weight": 0}

    def add_input_layer(self, vocab_size: int, hidden_size: int) -> int:
        self.embed = Embed(vocab_size, hidden_size)
        return hidden_size

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """One row for each character of the vocabulary, or for each input where those are fewer."""
        weight, bias = self.embed.weight, self.embed.bias
        if weight.size(0) < inputs.numel():
            return inputs, torch.tanh(weight + bias)
        return torch.tanh(F.embedding(inputs, weight) + bias), None


class GRUResize(CharModel):
    """GRU layers, the first of which takes the one-hot vector itself, so that it has no input
    layer but a weight_ih_l0 of (3H, V)."""

    plain_gru = True
    plain_gru = True
    BY_CHARACTER = CharModel.BY_CHARACTER | {"gru.weight_ih_l0": 1}

    def add_input_layer(self, vocab_size: int, hidden_size: int) -> int:
        return vocab_size

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The indices themselves: layer 0 gathers columns of its weight."""
        return inputs, None


class Embed(nn.Module):
    """The parameters of the input layer tanh(E[index] + a): weight (V, H) and bias (H)."""

    def __init__(self, vocab_size: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        uniform_fan_in(self.weight, vocab_size)


def uniform_fan_in(weight: Tensor, fan_in: int) -> None:
    """Uniform in +-1/sqrt(fan_in), in place."""
    nn.init.uniform_(weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
