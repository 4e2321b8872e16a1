"""Verifying, before a run, that a class from elsewhere keeps the contract of a model.

T time steps, B rows, V vocabulary size.
"""

import copy

import torch
from torch import Tensor, nn

from charrnn.errors import InputError
from charrnn.models.contract import RecurrentModel, batch_dim
from charrnn.models.state import describe, is_container, leaves, map_state, same_structure

STEPS, ROWS = 3, 2
OTHER_STEPS = (1, 40)
"""Lengths of two more windows, as of a generated character and of training."""


def verify_model(model: object, vocab_size: int) -> None:
    """Run a model on a short window and compare what it returns with the contract.

    Parameters, mode and random state stay as they are. Errors inside the model's own methods are
    not caught: their traceback shows where they are.

    Raises:
        InputError: names the method and what was found.
    """
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        raise InputError(f"model: {name} is no torch.nn.Module")
    for method in ("initial_state", "forward"):
        own = getattr(type(model), method, None)
        if own in (None, nn.Module.forward, getattr(RecurrentModel, method)):
            raise InputError(f"model: {name} has no method {method}; see charrnn/models/README.md")
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _verify(model.eval(), name, vocab_size)
    finally:
        model.train(was_training)


def _verify(model: nn.Module, name: str, vocab_size: int) -> None:
    states = {rows: model.initial_state(rows) for rows in (ROWS, ROWS + 1)}
    dim = batch_dim(model)
    for rows, state in states.items():
        if not leaves(state) or not all(isinstance(leaf, Tensor) for leaf in leaves(state)):
            raise InputError(
                f"model: {name}.initial_state({rows}) returned {describe(state)}, not a tensor or"
                " tuples, lists and dicts of tensors"
            )
        if not has_rows(state, dim, rows):
            raise InputError(
                f"model: {name}.initial_state({rows}) returned {describe(state)}; dimension {dim}"
                f" of each tensor must be {rows} rows, or say otherwise in state_batch_dim"
            )
    state = states[ROWS]
    inputs = torch.arange(STEPS * ROWS).remainder(vocab_size).view(STEPS, ROWS)
    result = model(inputs, state)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)):
        raise InputError(f"model: {name}.forward returned {describe(result)}, not (logits, state)")
    logits, final = result
    if logits.shape != (STEPS, ROWS, vocab_size):
        raise InputError(
            f"model: {name}.forward returned logits {describe(logits)} for inputs ({STEPS},"
            f" {ROWS}) and {vocab_size} characters; they must be (T, B, V) ="
            f" ({STEPS}, {ROWS}, {vocab_size})"
        )
    for steps in (STEPS, *OTHER_STEPS):
        if steps != STEPS:
            final = model(inputs[:1].repeat(steps, 1), final)[1]
        if not same_structure(final, state):
            raise InputError(
                f"model: {name}.forward returned a state {describe(final)} after {steps} steps;"
                f" that of initial_state({ROWS}) is {describe(state)}, and must stay so"
            )


def has_rows(state, dim, rows: int) -> bool:
    """Whether every tensor of a state has as many rows in its batch dimension."""
    if is_container(dim) and not (is_container(state) and len(dim) == len(state)):
        return False
    sizes = map_state(lambda x, d: -x.dim() <= d < x.dim() and x.size(d) == rows, state, dim)
    return all(leaves(sizes))


def copy_model(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model.

    Raises:
        InputError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"model: {type(model).__name__} cannot be copied by copy.deepcopy, which dynamic"
            f" evaluation requires ({error})"
        ) from error
