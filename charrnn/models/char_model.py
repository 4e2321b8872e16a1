"""CharModel: the base class of the language models, GRU layers between two character layers.

T time steps, B rows, V vocabulary size, H hidden size, L layers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.errors import check
from charrnn.gru import GRU
from charrnn.gru.hooks import has_hooks, is_plain_linear
from charrnn.models.budget import largest_hidden_size
from charrnn.models.contract import RecurrentModel


class CharModel(RecurrentModel):
    """An input layer defined by the subclass, GRU layers, dropout, and a linear layer H -> V.

    The state is an argument and a result of every method, and never kept inside. A subclass
    defines :meth:`add_input_layer` and :meth:`features`; see README.md in this folder.

    Args:
        vocab_size: V, the unknown character included.
        hidden_size: H.
        num_layers: L.
        dropout: probability of a zero between layers and before the output, never along time.
        reset, gate, backend: as in :class:`charrnn.gru.GRU`.
        parameters: upper bound on the number of parameters; the hidden size is the largest that
            satisfies it, and ``hidden_size`` is ignored.

    Raises:
        InputError: an argument is out of range, or even H = 1 has more than ``parameters``.
    """

    VOCAB_AXES = {"decoder.weight": 0, "decoder.bias": 0}
    """Parameters with one slice per character of the vocabulary, and the axis of the slices."""
    resets_documents = True

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
            hidden_size = largest_hidden_size(
                type(self), parameters, vocab_size, num_layers=num_layers, dropout=dropout,
                reset=reset, gate=gate, backend="reference",
            )  # fmt: skip
        check("hidden_size", hidden_size, hidden_size >= 1, "a whole number, at least 1")
        super().__init__()
        input_size = self.add_input_layer(vocab_size, hidden_size)
        self.gru = GRU(input_size, hidden_size, num_layers, dropout, reset, gate, backend)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        init_uniform(self.decoder.weight, hidden_size)
        nn.init.zeros_(self.decoder.bias)

    def add_input_layer(self, vocab_size: int, hidden_size: int) -> int:
        """Create the modules before the GRU; return the input size of the GRU."""
        raise NotImplementedError

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the inputs and the table of ``GRU.forward`` for indices (T, B)."""
        raise NotImplementedError

    def table_parts(self, inputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return :meth:`features` as E and a where the table is tanh(E + a); else a is None."""
        return *self.features(inputs), None

    def document_starts(self, inputs: Tensor) -> Tensor | None:
        """Return where documents start, (T, B) bool, or None if the text has no documents."""
        return None if self.boundary is None else inputs == self.boundary

    def outputs(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs (T, B, H) of the last linear layer and the final state (L, B, H)."""
        resets = self.document_starts(inputs)
        inputs, table = self.features(inputs)
        output, state = self.gru(inputs, state, table, resets)
        return self.dropout(output), state

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run a window.

        Args:
            inputs: (T, B) int64.
            state: (L, B, H).

        Returns:
            Logits (T, B, V) and the final state (L, B, H).
        """
        output, state = self.outputs(inputs, state)
        return self.decoder(output), state

    def loss(self, inputs: Tensor, targets: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean nats per character and the final state, with a fused loss if possible."""
        device, decoder = state.device, self.decoder
        fuses = self.gru.fuses_loss(device) and is_plain_linear(decoder)
        if fuses and self.is_one_step(inputs, device):
            from charrnn.gru.loss import window_cross_entropy

            given = *self.table_parts(inputs), state, targets
            weights = self.gru.all_weights, decoder.weight, decoder.bias
            variant = {"reset": self.gru.reset, "gate": self.gru.gate}
            return window_cross_entropy(*given, *weights, **variant)
        output, state = self.outputs(inputs, state)
        output, targets = output.flatten(0, 1), targets.flatten()
        if fuses:
            from charrnn.gru.loss import linear_cross_entropy

            return linear_cross_entropy(output, decoder.weight, decoder.bias, targets), state
        return F.cross_entropy(decoder(output), targets), state

    def is_one_step(self, inputs: Tensor, device: torch.device) -> bool:
        """Whether the GRU, the decoder and the loss are one step of autograd.

        So they are where nothing comes between them or listens to them, and both are trained: a
        fused step computes the gradients of all.
        """
        gru, dropout = self.gru, self.dropout
        return (
            device.type == "cpu"
            and torch.is_grad_enabled()
            and getattr(self.outputs, "__func__", None) is CharModel.outputs
            and type(gru) is GRU
            and gru.weight_hh_l0.requires_grad
            and self.decoder.weight.requires_grad
            and type(dropout) is nn.Dropout
            and not (gru.dropout and gru.training)
            and not (dropout.p and dropout.training)
            and not has_hooks(gru)
            and not has_hooks(dropout)
            and self.document_starts(inputs) is None
        )

    def nll(self, inputs: Tensor, targets: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nats of every target, (T, B), and the final state."""
        fuses = not state.is_cuda and self.gru.fuses_loss(state.device)
        if torch.is_grad_enabled() or not fuses or not is_plain_linear(self.decoder):
            return super().nll(inputs, targets, state)
        from charrnn.gru.loss import linear_nats

        output, state = self.outputs(inputs, state)
        weight, bias = self.decoder.weight, self.decoder.bias
        nats = linear_nats(output.flatten(0, 1), weight, bias, targets.flatten())
        return nats.view_as(targets), state

    def activations(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Return the output of every unit at every time step, (L, T, B, H)."""
        resets = self.document_starts(inputs)
        inputs, table = self.features(inputs)
        return self.gru.layers(inputs, state, table, resets)

    def gates(self, inputs: Tensor, state: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reset and update gates of every unit, each (L, T, B, H).

        Args:
            activations: the result of :meth:`activations` for the same inputs and state.
        """
        resets = self.document_starts(inputs)
        inputs, table = self.features(inputs)
        return self.gru.gates(activations, inputs, state, table, resets)

    def initial_state(self, batch_size: int) -> Tensor:
        """Return zeros (L, B, H), with the device and type of the parameters."""
        size = (self.gru.num_layers, batch_size, self.gru.hidden_size)
        return self.gru.bias_hh_l0.new_zeros(size)


def init_uniform(weight: Tensor, fan_in: int) -> None:
    """Fill a weight with values uniform in +-1/sqrt(fan_in), in place."""
    nn.init.uniform_(weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
