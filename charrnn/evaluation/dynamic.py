"""Dynamic evaluation: the parameters adapt to the text while it is scored.

Krause et al. 2018, "Dynamic evaluation of neural sequence models", arXiv:1709.07432. With theta_g
the trained parameters, theta those before a segment, and g the gradient of its mean loss,

- sgd: theta + lambda (theta_g - theta) - eta g;
- rms: theta + min(lambda RMS / mean(RMS), 1) (theta_g - theta) - eta g / (RMS + epsilon), element
  by element, RMS^2 being the mean of the squared gradients over windows of the training text.

T time steps in a segment, R rows, N characters.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from charrnn.data.stream import RowStream
from charrnn.data.waiting import say_progress
from charrnn.data.windows import EvaluationWindows
from charrnn.evaluation.totals import Totals
from charrnn.models import contract
from charrnn.models.state import State, detach
from charrnn.models.verify import copy_model

EPSILON = 1e-5
LEARNING_RATES = {
    "sgd": (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0),
    "rms": (2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
}
"""Values of eta that a search tries."""
DECAYS = (0.0, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
"""Values of lambda that a search tries."""


def evaluate_dynamic(
    model: nn.Module,
    windows: EvaluationWindows,
    lr: float,
    decay: float = 0.0,
    mean_squares: list[Tensor] | None = None,
) -> Totals:
    """Evaluate a copy of a model that is updated after each segment.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode; it is not changed.
        windows: the segments. One row reads the text in its order; with several, each update uses
            one segment of every row.
        lr: eta.
        decay: lambda, from 0 to 1.
        mean_squares: of :func:`mean_squared_gradients`, for the rms form; None for sgd.

    Returns:
        The totals, which are not finite where the learning rate makes the parameters diverge.
    """
    adaptation = Adaptation(model, lr, decay, mean_squares)
    totals, state = Totals(), contract.warm_state(model, windows)
    device = contract.device_of(model)
    for window in say_progress(windows, "dynamic evaluation"):
        inputs, targets = (part.to(device) for part in window[:2])
        state = adaptation.step(totals, inputs, targets, state)
        if not math.isfinite(totals.total):
            break
    return totals


class Adaptation:
    """A copy of a model, and the rule that updates it after each segment.

    Args:
        model, lr, decay, mean_squares: as in :func:`evaluate_dynamic`.
    """

    def __init__(
        self, model: nn.Module, lr: float, decay: float, mean_squares: list[Tensor] | None = None
    ):
        self.model = copy_model(model).requires_grad_()
        self.parameters, self.lr, self.decay = list(self.model.parameters()), lr, decay
        self.trained = [p.detach().clone() for p in self.parameters]
        self.pulls, self.rates = [torch.full_like(p, decay) for p in self.trained], None
        if mean_squares is not None:
            roots = [square.sqrt() for square in mean_squares]
            mean = torch.cat([root.flatten() for root in roots]).mean()
            self.pulls = [(decay / mean * root).clamp(max=1) for root in roots]
            self.rates = [lr / (root + EPSILON) for root in roots]

    def step(self, totals: Totals, inputs: Tensor, targets: Tensor, state: State) -> State:
        """Add a segment (T, R) to the totals, update the copy, and return the segment's state."""
        gradients, state = segment_gradients(
            self.model, totals, inputs, targets, state, self.parameters
        )
        with torch.no_grad():
            if self.decay:
                torch._foreach_lerp_(self.parameters, self.trained, self.pulls)
            if self.rates is None:
                torch._foreach_add_(self.parameters, gradients, alpha=-self.lr)
            else:
                torch._foreach_addcmul_(self.parameters, gradients, self.rates, value=-1)
        return state


def segment_gradients(
    model: nn.Module,
    totals: Totals,
    inputs: Tensor,
    targets: Tensor,
    state: State,
    parameters: list[Tensor],
) -> tuple[tuple[Tensor, ...], State]:
    """Add a segment (T, R) to the totals; return the gradients of its mean loss and its state."""
    before = totals.characters
    # cuDNN has no gradients of torch's own recurrent layers outside of training mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=not has_torch_layers(model)):
        logits, state = contract.run(model, inputs, state)
        loss = totals.add(logits, targets) / (totals.characters - before)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return gradients, detach(state)


def has_torch_layers(model: nn.Module) -> bool:
    """Whether a part of a model is one of torch's recurrent layers itself, not a class of ours."""
    return any(type(module) in (nn.LSTM, nn.GRU, nn.RNN) for module in model.modules())


def mean_squared_gradients(
    model: nn.Module, tokens: Tensor, seq_len: int, rows: int = 100, windows: int = 200
) -> list[Tensor]:
    """Compute the mean squared gradient of each parameter over windows of a training text.

    Args:
        tokens: (N,) indices of the text.
        seq_len: T, that of the segments of an evaluation.
        rows: R, evenly spaced in the text, or fewer where it is short.
        windows: how many windows of these rows are read, one pass at most. Each gives one gradient.
    """
    model = copy_model(model).requires_grad_()  # also of frozen parameters
    parameters = list(model.parameters())
    stream = RowStream(tokens, max(1, min(rows, len(tokens) // seq_len)), seq_len)
    sums = [torch.zeros_like(p) for p in parameters]
    state, device = contract.initial_state(model, stream.batch_size), contract.device_of(model)
    count = min(windows, len(stream))
    for _, window in zip(say_progress(range(count), "mean squared gradients"), stream):
        inputs, targets = (part.to(device) for part in window[:2])
        gradients, state = segment_gradients(model, Totals(), inputs, targets, state, parameters)
        torch._foreach_addcmul_(sums, gradients, gradients)
    return [total / count for total in sums]


def search_settings(
    loss: Callable[[float, float], float], lrs: tuple[float, ...], decays: tuple[float, ...]
) -> tuple[float, float, list[tuple[float, float, float]]]:
    """Search for the learning rate and the decay with the lowest loss, one coordinate at a time.

    First the rate, with the first decay; then the decay; then the rate again, with that decay. Each
    time values are tried in the given order until the loss has not fallen twice in a row.

    Returns:
        The rate, the decay, and all that was tried, as (rate, decay, loss).
    """
    tried: dict[tuple[float, float], float] = {}

    def best(pairs: list[tuple[float, float]]) -> tuple[float, float]:
        without_gain = 0
        for pair in pairs:
            if pair not in tried:
                tried[pair] = loss(*pair)
            least = min(tried.values())
            without_gain = 0 if tried[pair] == least else without_gain + 1
            if without_gain == 2:
                break
        return min((pair for pair in pairs if pair in tried), key=tried.__getitem__)

    lr, _ = best([(lr, decays[0]) for lr in lrs])
    lr, decay = best([(lr, decay) for decay in decays])
    lr, decay = best([(rate, decay) for rate in lrs if rate >= lr])
    return lr, decay, [(*pair, value) for pair, value in tried.items()]
