"""The contract of a model: ``initial_state`` and ``forward``, and generic forms of all else.

T time steps, B rows, V vocabulary size, L layers, H hidden size.

Any ``torch.nn.Module`` with the two methods is a model. The rest of the project calls the functions
of this file, which use a faster method of the model's class where it has one.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.errors import InputError
from charrnn.gru.hooks import has_hooks
from charrnn.models.state import State, detach, replace_rows, to_device


class RecurrentModel(nn.Module):
    """Optional base class of a model; its methods are the generic forms, of any model.

    A model defines :meth:`initial_state` and :meth:`forward`. It may define ``loss``, ``nll``,
    ``outputs`` (whose second result is the final state, where that is cheaper without logits),
    ``activations`` and ``gates``, as :class:`charrnn.models.CharModel` does.
    """

    state_batch_dim = 1
    """The dimension of the B rows in every tensor of the state; or a container of such numbers."""
    resets_documents = False
    """Whether all methods reset the state where ``boundary`` occurs. Otherwise callers do it."""
    boundary: int | None = None
    """Index of the character that starts a document and resets the state; None without."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first character of B = ``batch_size`` rows."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the logits (T, B, V) and the final state, for inputs (T, B) int64 and a state."""
        raise NotImplementedError

    def nll(self, inputs: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the negative log-likelihood of every target, (T, B) nats, and the final state.

        A target of -100 is ignored; its value is zero.
        """
        logits, state = run(self, inputs, state)
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return nats.view_as(targets), state

    def loss(self, inputs: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the mean nats per character and the final state."""
        logits, state = run(self, inputs, state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state


def method(model: nn.Module, name: str) -> Callable | None:
    """Return a method that the model's class defines, or None; a submodule of the name is none."""
    return getattr(model, name) if callable(getattr(type(model), name, None)) else None


SIGNATURES = {
    "activations": "activations(inputs, state) -> (L, T, B, H)",
    "gates": "gates(inputs, state, activations) -> reset, update, each (L, T, B, H)",
}
"""Methods without a generic form."""


def required(model: nn.Module, name: str) -> Callable:
    """Return a method of ``SIGNATURES``. Raises InputError, naming it, if the class has none."""
    if (own := method(model, name)) is None:
        raise InputError(f"model: {type(model).__name__} has no method {SIGNATURES[name]}")
    return own


def faster(model: nn.Module, name: str) -> Callable | None:
    """Return a method that computes what ``forward`` does in less time, or None.

    Hooks must hear each call, so with them there is none. Nor is there where a class derived from
    that of the method changes ``forward``, which the method knows nothing of.
    """
    if (own := method(model, name)) is None or has_hooks(model):
        return None
    for kind in type(model).__mro__:
        if name in vars(kind):
            return own
        if "forward" in vars(kind):
            return None
    return own


def batch_dim(model: nn.Module):
    """Return the dimension of the rows in the model's state, as :mod:`charrnn.models.state`."""
    return getattr(model, "state_batch_dim", 1)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def initial_state(model: nn.Module, batch_size: int) -> State:
    """Return the model's initial state, on its device and without a graph."""
    return to_device(detach(model.initial_state(batch_size)), device_of(model))


def run(model: nn.Module, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the logits (T, B, V) and the final state; the state is reset at documents."""
    if not _has_documents(model):
        return model(inputs, state)
    parts, state = _by_document(model, inputs, state, lambda part, s: model(inputs[part], s))
    return torch.cat(parts), state


def advance(model: nn.Module, inputs: Tensor, state: State) -> State:
    """Return only the final state of a window."""
    outputs = faster(model, "outputs")
    if outputs is None or _has_documents(model):
        return run(model, inputs, state)[1]
    return outputs(inputs, state)[1]


def nll(model: nn.Module, inputs: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the nats of every target, (T, B), and the final state."""
    own = faster(model, "nll")
    if own is None:
        return RecurrentModel.nll(model, inputs, targets, state)
    if getattr(own, "__func__", None) is RecurrentModel.nll or not _has_documents(model):
        return own(inputs, targets, state)
    parts, state = _by_document(
        model, inputs, state, lambda part, s: own(inputs[part], targets[part], s)
    )
    return torch.cat(parts), state


def loss(model: nn.Module, inputs: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the loss that is differentiated, mean nats per character, and the final state."""
    own = faster(model, "loss")
    if own is None:
        return RecurrentModel.loss(model, inputs, targets, state)
    if getattr(own, "__func__", None) is RecurrentModel.loss or not _has_documents(model):
        return own(inputs, targets, state)
    parts, state = _by_document(
        model, inputs, state, lambda part, s: own(inputs[part], targets[part], s)
    )
    shares = [end - begin for begin, end in _segments(model, inputs)]
    return sum(part * share for part, share in zip(parts, shares)) / len(inputs), state


def activations(model: nn.Module, inputs: Tensor, state: State) -> Tensor:
    """Return the output of every unit at every time step, (L, T, B, H).

    Raises:
        InputError: the model's class has no method ``activations``.
    """
    own = required(model, "activations")
    if not _has_documents(model):
        return own(inputs, state)

    def segment(part: slice, state: State) -> tuple[Tensor, State]:
        return own(inputs[part], state), model(inputs[part], state)[1]

    return torch.cat(_by_document(model, inputs, state, segment)[0], 1)


def gates(
    model: nn.Module, inputs: Tensor, state: State, activations: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the reset and update gates of every unit, each (L, T, B, H).

    Raises:
        InputError: the model's class has no method ``gates``.
    """
    return required(model, "gates")(inputs, state, activations)


@torch.no_grad()
def warm_state(model: nn.Module, windows) -> State:
    """Return the state at the start of the rows of an evaluation, after their burn-in.

    Args:
        windows: :class:`charrnn.data.EvaluationWindows`.
    """
    dim, device = batch_dim(model), device_of(model)
    state = initial = initial_state(model, windows.rows)
    for inputs, starting in windows.burn_in_parts():
        state = replace_rows(state, starting.to(device), initial, dim)
        if len(inputs):
            state = advance(model, inputs.to(device), state)
    return state


def _has_documents(model: nn.Module) -> bool:
    """Whether the state must be reset at documents outside of the model's methods."""
    return getattr(model, "boundary", None) is not None and not getattr(
        model, "resets_documents", False
    )


def _segments(model: nn.Module, inputs: Tensor) -> list[tuple[int, int]]:
    """Divide a window (T, B) at each step where a document starts in any row."""
    starts = (inputs == model.boundary).any(1).nonzero()[:, 0].tolist()
    return list(itertools.pairwise([0, *(t for t in starts if t), len(inputs)]))


def _by_document(
    model: nn.Module, inputs: Tensor, state: State, segment: Callable
) -> tuple[list, State]:
    """Run segments of a window, with the initial state in the rows where a document starts.

    Args:
        segment: function from a slice of the T steps and a state to a result and the final state.
    """
    results, dim, initial = [], batch_dim(model), initial_state(model, inputs.size(1))
    for begin, end in _segments(model, inputs):
        state = replace_rows(state, inputs[begin] == model.boundary, initial, dim)
        result, state = segment(slice(begin, end), state)
        results.append(result)
    return results, state
