"""A model in training, as benchmarks time it: forward, backward, clipping to +-5 and RMSProp.

T time steps, B rows, V vocabulary size, H hidden size, L layers.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.gru.optimizer import FusedStep, supports
from charrnn.models import CharModel
from charrnn.training.gradients import clip_by_value
from charrnn.training.graphs import StepGraph

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names, and the type of operands under autocast."""


CLIP = 5.0
"""Elements of gradients are clipped to +- this."""


class Baseline(nn.Module):
    """A baseline of torch.nn modules: tanh(E[index] + a), a recurrent layer, a linear layer."""

    def __init__(self, kind: type[nn.RNNBase], vocab_size: int, hidden_size: int, layers: int):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, hidden_size)
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.rnn = kind(hidden_size, hidden_size, layers)
        self.decoder = nn.Linear(hidden_size, vocab_size)

    def initial_state(self, rows: int) -> Tensor | tuple[Tensor, Tensor]:
        state = self.decoder.weight.new_zeros(self.rnn.num_layers, rows, self.rnn.hidden_size)
        return (state, state) if isinstance(self.rnn, nn.LSTM) else state

    def loss(self, inputs: Tensor, targets: Tensor, state):
        output, state = self.rnn(torch.tanh(self.embed(inputs) + self.bias), state)
        return F.cross_entropy(self.decoder(output).flatten(0, 1), targets.flatten()), state


class Training:
    """A model in training; calling it is one step, on a CPU as fused for ours as a run's.

    Args:
        inputs, targets: (T, B) indices.
        precision: one of ``PRECISIONS``. With 16-mixed a GradScaler scales the loss, but not in a
            graph, where it would have to ask the host.
        graph: whether the step is a CUDA graph.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        precision: str = "32-true",
        graph: bool = False,
    ):
        self.model, self.inputs, self.targets = model, inputs, targets
        self.precision = precision
        self.state = model.initial_state(inputs.size(1))
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.RMSprop(self.parameters, lr=1e-3, alpha=0.95)
        scales = precision == "16-mixed" and not graph
        self.scaler = torch.amp.GradScaler(inputs.device.type) if scales else None
        self.fused = None
        if isinstance(model, CharModel) and supports(self.optimizer):
            self.fused = FusedStep(self.optimizer)
        self.graph = None
        if graph:
            self.graph = StepGraph(self.optimizer, self._forward, [self._before_step], [self.state])

    def __call__(self) -> None:
        if self.graph is not None:
            self.graph()
            return
        loss, _ = self._forward()
        if self.fused is None:
            self.optimizer.zero_grad()
        else:  # as DirectOptimization does
            for parameter in self.parameters:
                parameter.grad = None
        if self.scaler is None:
            loss.backward()
            self._keep_state()
            if self.fused is None or self.fused(0.0, CLIP) is None:
                nn.utils.clip_grad_value_(self.parameters, CLIP)
                self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            self._before_step()
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _forward(self) -> tuple[Tensor, Tensor]:
        with autocast(self.inputs.device, self.precision):
            loss, self.next = self.model.loss(self.inputs, self.targets, self.state)
        return loss, loss

    def _before_step(self) -> float | None:
        """Clip, or return the bound for a graph's step, as of a run, to clip."""
        self._keep_state()
        ours = isinstance(self.model, CharModel)
        if ours and self.scaler is None:
            return CLIP
        if ours:
            clip_by_value([p.grad for p in self.parameters], CLIP)
        else:
            nn.utils.clip_grad_value_(self.parameters, CLIP)
        return None

    def _keep_state(self) -> None:
        # The state is changed when backward has no more use for it.
        if type(self.state) is tuple:
            self.state = tuple(s.detach() for s in self.next)
        else:
            self.state.copy_(self.next.detach())
        self.next = None  # which would keep the autograd graph


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the context of a forward pass in one of ``PRECISIONS``."""
    low = PRECISIONS[precision]
    return contextlib.nullcontext() if low is None else torch.autocast(device.type, low)
