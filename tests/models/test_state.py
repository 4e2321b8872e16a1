"""States of any nesting: every function does to each tensor what torch does to one.

Properties over random nestings of tuples, named tuples, lists and dicts.
"""

import io
from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import InputError
from charrnn.models import state as states

ROWS = 4
Two = namedtuple("Two", "a b")


def tensors(dim):
    """Tensors with ``ROWS`` rows in a dimension, of several types."""

    def make(size, dtype, seed):
        size[dim % len(size)] = ROWS
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(size, generator=generator) * 9).to(dtype)

    sizes = st.lists(st.integers(1, 3), min_size=2, max_size=4)
    types = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool])
    return st.builds(make, sizes, types, st.integers(0, 99))


def nestings(leaf):
    """Containers of all kinds around tensors."""
    return st.recursive(
        leaf,
        lambda part: st.one_of(
            st.lists(part, min_size=1, max_size=3),
            st.lists(part, min_size=1, max_size=3).map(tuple),
            st.builds(Two, part, part),
            st.dictionaries(st.sampled_from("abc"), part, min_size=1, max_size=3),
        ),
        max_leaves=6,
    )


anywhere = st.sampled_from([0, 1, -1]).flatmap(
    lambda dim: st.tuples(st.just(dim), nestings(tensors(dim)))
)


def kinds(state):
    """The containers of a state, without its tensors."""
    return states.map_state(lambda x: None, state)


@given(anywhere)
@settings(max_examples=40)
def test_structure_is_kept(case):
    dim, state = case
    for other in (
        states.detach(state), states.roll_rows(state, dim), states.narrow_rows(state, 1, 2, dim),
        states.join_rows([state, state], dim), states.detach(state, state),
        states.select_rows(state, torch.tensor([0, 0, 3]), dim),
        states.replace_rows(state, torch.tensor([True, False, True, False]), state, dim),
        states.from_plain(states.to_plain(state), state),
    ):  # fmt: skip
        assert kinds(other) == kinds(state)
        found = [type(part) for part in walk(other)]
        assert found == [type(part) for part in walk(state)]
    assert states.count_rows(state, dim) == ROWS


def walk(state):
    """All containers and tensors of a state."""
    yield state
    if not isinstance(state, torch.Tensor):
        for part in state.values() if isinstance(state, dict) else state:
            yield from walk(part)


def equal(a, b):
    pairs = list(zip(states.leaves(a), states.leaves(b), strict=True))
    return all(x.dtype == y.dtype and x.equal(y) for x, y in pairs)


@given(anywhere)
@settings(max_examples=40)
def test_rows(case):
    dim, state = case
    rolled = states.roll_rows(state, dim)
    order = torch.tensor([3, 0, 1, 2])
    assert equal(rolled, states.select_rows(state, order, dim))
    halves = [states.narrow_rows(state, first, 2, dim) for first in (0, 2)]
    assert equal(states.join_rows(halves, dim), state)
    row = states.narrow_rows(state, 1, 1, dim)
    assert equal(
        states.repeat_row(row, 3, dim), states.select_rows(state, torch.ones(3).long(), dim)
    )
    mask = torch.tensor([True, False, False, True])
    mixed = states.replace_rows(state, mask, rolled, dim)
    for i, from_rolled in enumerate(mask):
        source = rolled if from_rolled else state
        assert equal(states.narrow_rows(mixed, i, 1, dim), states.narrow_rows(source, i, 1, dim))


@given(anywhere)
@settings(max_examples=40)
def test_files(case):
    """What is saved loads with weights_only, and comes back as it was."""
    _, state = case
    file = io.BytesIO()
    torch.save(states.to_plain(state), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert equal(states.from_plain(saved, state), state)
    larger = states.join_rows([state, state], case[0])
    with pytest.raises(InputError, match="there and"):
        states.from_plain(saved, larger)


def test_dimensions_of_parts():
    state = (torch.arange(6).view(2, 3), {"x": [torch.arange(3)], "y": torch.arange(3)[None]})
    dim = (1, {"x": 0, "y": -1})
    rolled = states.roll_rows(state, dim)
    assert rolled[0].tolist() == [[2, 0, 1], [5, 3, 4]]
    assert rolled[1]["x"][0].tolist() == [2, 0, 1] == rolled[1]["y"][0].tolist()
    assert states.count_rows(state, dim) == 3


def test_structures_differ():
    a, b = torch.zeros(2), torch.zeros(3)
    assert states.same_structure({"x": (a, [b])}, {"x": Two(a, b)._replace(b=[b])})
    for one, other in (
        (a, b), ((a,), [a]), ((a,), (a, a)), ({"x": a}, {"y": a}), ((a,), a), (a, None),
    ):  # fmt: skip
        assert not states.same_structure(one, other)
    assert states.describe({"x": (a, [b, None])}) == "{x: [(2,), [(3,), NoneType]]}"
