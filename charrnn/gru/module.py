"""GRU: a stack of layers with the parameters of ``torch.nn.GRU`` and a choice of backends.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.
"""

import functools
import importlib
import itertools
import math
import sys
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.errors import InputError, check
from charrnn.gru import cuda, reference

RESETS = ("after", "before")
GATES = ("sigmoid", "hard_sigmoid")
BACKENDS = ("auto", "reference", "torch", "native")


class GRU(nn.GRU):
    """A stack of GRU layers; the state is an argument and a result, never kept inside.

    Parameters have the names, shapes and order of ``torch.nn.GRU``. In addition, inputs may be
    indices, the reset gate may act before the hidden product, and gates may be hard.

    Args:
        reset: apply the reset gate "after" the product with W_hn (cuDNN) or "before" it (Cho et
            al. 2014, arXiv:1406.1078).
        gate: "sigmoid", or "hard_sigmoid" = clip(0.2 a + 0.5, 0, 1).
        dropout: probability of a zero between layers, never along time.
        backend: one of ``BACKENDS``; see :meth:`choose_backend` for "auto".

    Raises:
        InputError: an argument is out of range, or the backend does not support the variant.
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
        check("num_layers", num_layers, 1 <= num_layers <= 1000, "a whole number from 1 to 1000")
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
        """Initialize weights uniformly in +-1/sqrt(fan-in) and biases with zeros."""
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.uniform_(
                    weight, -1 / math.sqrt(weight.size(1)), 1 / math.sqrt(weight.size(1))
                )
            else:
                nn.init.zeros_(weight)

    def choose_backend(self, device: torch.device, rows: int | None = None) -> str:
        """Return the name of the backend used on a device.

        "auto" selects the fastest that supports the variant. On a CPU that is native, which is
        compiled on first use; on a GPU native, or cuDNN where it is faster, by a fixed table
        (:func:`charrnn.gru.cuda.plan.why_not_auto`). If native cannot be had, a line on standard
        error says why.

        Args:
            rows: the batch size, where it is known.

        Raises:
            InputError: the backend was named and does not support the variant on the device.
        """
        return self._choose(device, rows)[0]

    def describe_backend(self, device: torch.device, rows: int | None = None) -> str:
        """The backend's name, and why auto took it where that is not the usual one."""
        name, reason = self._choose(device, rows)
        return f"{name} ({reason})" if reason else name

    def _choose(self, device: torch.device, rows: int | None) -> tuple[str, str]:
        """The backend's name, and why it is not native where auto did not take that."""
        if self.backend != "auto":
            reason = why_unsupported(self.backend, self.reset, self.gate, device)
            if reason is not None:
                raise InputError(f"backend={self.backend}: {reason}; auto takes one that can")
            return self.backend, ""
        reason = why_unsupported("native", self.reset, self.gate, device)
        if reason is None:
            if device.type != "cuda" or why_unsupported("torch", self.reset, self.gate, device):
                return "native", ""
            why = cuda.why_not_auto(device, self.hidden_size, rows)
            return ("torch", why) if why else ("native", "")
        others = ("torch", "reference")
        name = next(n for n in others if not why_unsupported(n, self.reset, self.gate, device))
        if device.type in ("cpu", "cuda"):
            print_once(f"{reason}; auto takes {name}")
        return name, reason

    def fuses_loss(self, device: torch.device) -> bool:
        """Whether :func:`charrnn.gru.loss.linear_cross_entropy` computes there."""
        if device.type == "cuda" and self.backend in ("auto", "torch"):
            return why_unsupported("native", self.reset, self.gate, device) is None
        return self.choose_backend(device) == "native"

    def forward(
        self,
        inputs: Tensor,
        state: Tensor,
        table: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run all layers over a window.

        Args:
            inputs: (T, B, I) features, or (T, B) int64 indices.
            state: (L, B, H).
            table: with indices, the features of every index, (V, I); None means one-hot vectors
                of length I, which are never materialized.
            resets: (T, B) bool, steps before which the state of a row is set to zero; None if
                there are none.

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
        """Return the outputs of all layers, (L, T, B, H), without dropout; see :meth:`forward`."""
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
        """Return the reset and update gates of all layers, each (L, T, B, H).

        Gates are a function of the states before each step, so no loop over time is needed.

        Args:
            outputs: the result of :meth:`layers` for the other arguments.
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
            return self._run_segment(inputs, table, state, weights)
        # One segment from each step at which the state of any row is reset.
        starts = [t for t in resets.any(1).nonzero()[:, 0].tolist() if t]
        outputs = []
        for begin, end in itertools.pairwise([0, *starts, len(inputs)]):
            state = state.masked_fill(resets[begin][None, :, None], 0)
            output, state = self._run_segment(inputs[begin:end], table, state, weights)
            outputs.append(output)
        return torch.cat(outputs), state

    def _run_segment(self, inputs, table, state, weights):
        name = self.choose_backend(state.device, state.size(1))
        backend = backend_module(name)
        dropout = self.dropout if self.training else 0.0
        return backend.forward(
            inputs, table, state, weights, reset=self.reset, gate=self.gate, dropout=dropout
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, reset={self.reset}, gate={self.gate}"


def why_unsupported(name: str, reset: str, gate: str, device: torch.device) -> str | None:
    """Return why a backend cannot compute a variant on a device; None if it can."""
    return backend_module(name).unsupported(reset, gate, device)


@functools.cache
def backend_module(name: str) -> ModuleType:
    """Return the module of a backend."""
    return importlib.import_module(f"charrnn.gru.{name}")


@functools.cache
def print_once(line: str) -> None:
    """Print a line on standard error, once per process."""
    print(f"charrnn: {line}", file=sys.stderr, flush=True)
