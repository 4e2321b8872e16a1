"""GRU: parameters as in ``torch.nn.GRU``, computed by the backend of one's choice.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.
"""

import functools
import importlib
import itertools
import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.errors import InputError, check
from charrnn.gru import reference

RESETS = ("after", "before")
GATES = ("sigmoid", "hard_sigmoid")
BACKENDS = ("auto", "reference", "torch", "native")


class GRU(nn.GRU):
    """A stack of GRU layers, whose state goes in and comes out.

    It is a ``torch.nn.GRU`` in the names, shapes and order of its parameters; forward also takes
    indices, has the reset before the product, hard gates, and a choice of backends.

    Args:
        reset: "after" the product with W_hn (cuDNN), or "before" it (Cho et al. 2014).
        gate: "sigmoid", or "hard_sigmoid" = clip(0.2 a + 0.5, 0, 1).
        dropout: probability of a zero between layers, never along time.
        backend: "auto" or one of ``BACKENDS``; ``choose_backend`` tells what auto takes.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        reset: str = "after",
        gate: str = "sigmoid",
        backend: str = "auto",
    ):
        check("hidden_size", hidden_size, hidden_size >= 1, "a whole number, at least 1")
        check("num_layers", num_layers, num_layers >= 1, "a whole number, at least 1")
        check("dropout", dropout, 0 <= dropout < 1, "at least 0 and below 1")
        check("reset", reset, reset in RESETS, " or ".join(RESETS))
        check("gate", gate, gate in GATES, " or ".join(GATES))
        check("backend", backend, backend in BACKENDS, ", ".join(BACKENDS))
        super().__init__(input_size, hidden_size, num_layers)
        self.dropout = dropout
        self.reset, self.gate, self.backend = reset, gate, backend
        if backend != "auto":
            self.choose_backend(torch.device("cpu"))

    def reset_parameters(self) -> None:
        """Weights uniform in +-1/sqrt(fan-in), biases zero."""
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.uniform_(
                    weight, -1 / math.sqrt(weight.size(1)), 1 / math.sqrt(weight.size(1))
                )
            else:
                nn.init.zeros_(weight)

    def choose_backend(self, device: torch.device) -> str:
        """The backend's name on a device. Raises InputError for a named one that cannot.

        On a CPU auto takes the fastest that computes the variant: native, which is compiled at
        the first question; where that fails, one line on standard error says why.
        """
        if self.backend != "auto":
            reason = why_unsupported(self.backend, self.reset, self.gate, device)
            if reason is not None:
                raise InputError(f"backend={self.backend}: {reason}; auto takes one that can")
            return self.backend
        names = ("native", "torch", "reference") if device.type == "cpu" else ("torch", "reference")
        reasons = {name: why_unsupported(name, self.reset, self.gate, device) for name in names}
        name = next(name for name in names if reasons[name] is None)
        if reasons.get("native"):
            print_once(f"{reasons['native']}; auto takes {name}")
        return name

    def forward(
        self,
        inputs: Tensor,
        state: Tensor,
        table: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run a window.

        Args:
            inputs: (T, B, I) features, or (T, B) int64 indices.
            state: (L, B, H).
            table: with indices, the features of every index, (V, I); None stands for one-hot
                vectors of I entries, which are never made.
            resets: (T, B) bool, where the state of a row is zero before a step; None where it
                never is.

        Returns:
            Outputs (T, B, H) of the last layer and the final state (L, B, H).
        """
        return self._run(inputs, table, state, self.all_weights, resets)

    def layers(
        self,
        inputs: Tensor,
        state: Tensor,
        table: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Tensor:
        """Every layer's outputs, (L, T, B, H), without dropout; arguments as in forward."""
        outputs = []
        for layer, weights in enumerate(self.all_weights):
            inputs, _ = self._run(inputs, table, state[layer : layer + 1], [weights], resets)
            table = None
            outputs.append(inputs)
        return torch.stack(outputs)

    def gates(
        self,
        outputs: Tensor,
        inputs: Tensor,
        state: Tensor,
        table: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Every layer's reset and update gates, each (L, T, B, H), whatever the backend.

        They follow from the states before each step, so that no loop over time is needed.

        Args:
            outputs: what ``layers`` returned for the other arguments.
        """
        squash = torch.sigmoid if self.gate == "sigmoid" else reference.hard_sigmoid
        before = torch.cat([state[:, None], outputs[:, :-1]], 1)
        if resets is not None:
            before = before.masked_fill(resets[None, ..., None], 0)
        gates = []
        for layer, weights in enumerate(self.all_weights):
            w_ih, w_hh, b_ih, b_hh = (w[: 2 * self.hidden_size] for w in weights)
            x = reference.input_gates(inputs, table, w_ih, b_ih)
            gates.append(squash(x + F.linear(before[layer], w_hh, b_hh)))
            inputs, table = outputs[layer], None
        return torch.stack(gates).chunk(2, dim=3)

    def _run(self, inputs, table, state, weights, resets=None):
        if resets is None:
            return self._run_through(inputs, table, state, weights)
        # Piece by piece, one from each step at which the state of any row is reset.
        starts = [t for t in resets.any(1).nonzero()[:, 0].tolist() if t]
        outputs = []
        for begin, end in itertools.pairwise([0, *starts, len(inputs)]):
            state = state.masked_fill(resets[begin][None, :, None], 0)
            output, state = self._run_through(inputs[begin:end], table, state, weights)
            outputs.append(output)
        return torch.cat(outputs), state

    def _run_through(self, inputs, table, state, weights):
        backend = importlib.import_module(f"charrnn.gru.{self.choose_backend(state.device)}")
        dropout = self.dropout if self.training else 0.0
        return backend.forward(
            inputs, table, state, weights, reset=self.reset, gate=self.gate, dropout=dropout
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, reset={self.reset}, gate={self.gate}"


def why_unsupported(name: str, reset: str, gate: str, device: torch.device) -> str | None:
    """Return why a backend cannot compute a variant on a device; None if it can."""
    module = importlib.import_module(f"charrnn.gru.{name}")
    return module.unsupported(reset, gate, device)


@functools.cache
def print_once(line: str) -> None:
    """Print a line on standard error, once per process."""
    print(f"charrnn: {line}", file=sys.stderr, flush=True)
