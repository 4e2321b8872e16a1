"""States of models: a tensor, or tuples, lists and dicts of tensors, handled as one value.

B rows. Every function takes and returns whole states. ``dim`` is the dimension of the B rows in
every tensor of a state, or a container of such numbers for the parts of the state.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from charrnn.errors import InputError

State = Tensor | tuple | list | dict
"""A tensor, or a tuple (named or not), list or dict of states."""


def map_state(function: Callable, state: State, *others):
    """Apply a function to every tensor of a state; the result has the structure of the state.

    Args:
        others: further arguments: containers with the structure of the state, or with that of its
            upper levels, whose values then apply to everything below.
    """
    if not isinstance(state, tuple | list | dict):
        return function(state, *others)
    keys = state if isinstance(state, dict) else range(len(state))
    parts = [
        map_state(function, state[k], *(o[k] if is_container(o) else o for o in others))
        for k in keys
    ]
    if isinstance(state, dict):
        return dict(zip(keys, parts))
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def is_container(value: object) -> bool:
    """Whether a value holds states, as opposed to a tensor or a number."""
    return isinstance(value, tuple | list | dict)


def leaves(state: State) -> list[Tensor]:
    """Return the tensors of a state, in order."""
    if not is_container(state):
        return [state]
    parts = state.values() if isinstance(state, dict) else state
    return [leaf for part in parts for leaf in leaves(part)]


def detach(state: State, like: State | None = None) -> State:
    """Return a state without the graph of its computation.

    Args:
        like: a state of the same structure whose types the result has.
    """
    if like is None:
        return map_state(Tensor.detach, state)
    return map_state(lambda x, y: x.detach().to(y.dtype), state, like)


def to_device(state: State, device: torch.device) -> State:
    """Return a state on a device."""
    return map_state(lambda x: x.to(device), state)


def count_rows(state: State, dim=1) -> int:
    """Return B."""
    return leaves(map_state(lambda x, d: x.size(d), state, dim))[0]


def roll_rows(state: State, dim=1) -> State:
    """Return a state whose row i is row i - 1 of the given one; row 0 is the last row."""
    return map_state(lambda x, d: x.roll(1, d), state, dim)


def select_rows(state: State, rows: Tensor, dim=1) -> State:
    """Return the state of some rows, (N,) int64, in their order; a row may occur repeatedly."""
    return map_state(lambda x, d: x.index_select(d, rows.to(x.device)), state, dim)


def repeat_row(state: State, count: int, dim=1) -> State:
    """Return the state of ``count`` rows, each a copy of the only row of a state."""
    return select_rows(state, torch.zeros(count, dtype=torch.int64), dim)


def narrow_rows(state: State, first: int, count: int, dim=1) -> State:
    """Return the state of ``count`` rows from row ``first`` on."""
    return map_state(lambda x, d: x.narrow(d, first, count).contiguous(), state, dim)


def join_rows(states: list[State], dim=1) -> State:
    """Return the state of the rows of several states, one after another."""
    first, *rest = states
    return map_state(lambda x, d, *more: torch.cat([x, *more], d), first, dim, *rest)


def replace_rows(state: State, mask: Tensor, other: State, dim=1) -> State:
    """Return a state with the rows of ``other`` where the mask (B,) bool is true."""

    def replace(x: Tensor, y: Tensor, d: int) -> Tensor:
        shape = [-1 if i == d % x.dim() else 1 for i in range(x.dim())]
        return torch.where(mask.to(x.device).view(shape), y, x)

    return map_state(replace, state, other, dim)


def to_plain(state: State) -> State:
    """Return a state of plain tuples, lists, dicts and tensors, for a file.

    A file of these loads with ``weights_only=True``. A tensor is returned unchanged.
    """
    if isinstance(state, Tensor):
        return state
    if isinstance(state, dict):
        return {key: to_plain(part) for key, part in state.items()}
    return (list if isinstance(state, list) else tuple)(to_plain(part) for part in state)


def from_plain(saved: State, like: State) -> State:
    """Return the state that :func:`to_plain` made plain.

    Args:
        like: a state whose containers, devices and types the result has.

    Raises:
        InputError: the structures or the shapes differ; names both.
    """
    if not same_structure(saved, like):
        raise InputError(f"the state is {describe(saved)} there and {describe(like)} here")
    return map_state(lambda x, y: y.to(x), like, saved)


def same_structure(a: State, b: State) -> bool:
    """Whether two states have equal containers, keys and shapes; named tuples count as tuples."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape
    for kind in (dict, tuple, list):
        if isinstance(a, kind) and isinstance(b, kind):
            parts = (
                (a.keys() == b.keys() and [(a[k], b[k]) for k in a])
                if kind is dict
                else (len(a) == len(b) and list(zip(a, b)))
            )
            return parts is not False and all(same_structure(x, y) for x, y in parts)
    return False


def describe(state: object) -> str:
    """Write the structure and the shapes of a state for a message."""
    if isinstance(state, Tensor):
        return str(tuple(state.shape))
    if isinstance(state, dict):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in state.items()) + "}"
    if isinstance(state, tuple | list):
        return "[" + ", ".join(map(describe, state)) + "]"
    return type(state).__name__
