"""RowStream against its definition, written out index by index."""

import itertools
import math

import pytest
import torch

from charrnn import InputError, RowStream
from charrnn.data.stream import Window

# N, B, T: not divisible, divisible, one more; smaller than a batch of windows down to one.
SIZES = [(100, 3, 7), (21, 3, 7), (42, 3, 7), (22, 3, 7), (20, 3, 7), (5, 3, 7), (2, 3, 7),
         (1, 3, 7), (50, 1, 7), (50, 5, 1)]  # fmt: skip
sizes = pytest.mark.parametrize(("N", "B", "T"), SIZES, ids=lambda v: str(v))


def windows_in_a_pass(N, R, T):
    return math.ceil(math.ceil(N / T) / R)


def offsets(N, R, T, i, p):
    """Where window p of row i reads, one index per step and one for the last target."""
    P = windows_in_a_pass(N, R, T)
    return [(i * P * T + p * T + t) % N for t in range(T + 1)]


def take(stream, count):
    return list(itertools.islice(stream, count))


def same(a, b):
    return a.index == b.index and a.inputs.equal(b.inputs) and a.targets.equal(b.targets)


@sizes
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int64], ids=str)
def test_windows_are_as_defined(N, B, T, dtype):
    stream = RowStream(torch.arange(N).to(dtype), B, T)
    P = windows_in_a_pass(N, B, T)
    assert len(stream) == P
    for number, window in enumerate(take(stream, 2 * P + 1)):
        assert window.index == number % P
        assert window.inputs.shape == window.targets.shape == (T, B)
        assert window.inputs.dtype == window.targets.dtype == torch.int64
        for i in range(B):
            expected = offsets(N, B, T, i, window.index)
            assert window.inputs[:, i].tolist() == expected[:-1]
            assert window.targets[:, i].tolist() == expected[1:]


@sizes
def test_a_pass_covers_every_character(N, B, T):
    stream = RowStream(torch.arange(N), B, T)
    windows = take(stream, len(stream))
    for part in ("inputs", "targets"):
        assert {c for w in windows for c in getattr(w, part).flatten().tolist()} == set(range(N))
    # No shorter pass would: one window less of every row leaves characters out.
    assert (len(stream) - 1) * B * T < N


@sizes
def test_rows_continue_and_roll(N, B, T):
    stream = RowStream(torch.arange(N), B, T)
    P = len(stream)
    windows = take(stream, 2 * P)
    for a, b in itertools.pairwise(windows):
        after, first = a.targets[-1], b.inputs[0]
        if b.index:
            assert after.equal(first)
        else:  # over the roll: row i starts where row i - 1 stopped
            assert after[:-1].equal(first[1:])


def test_text_is_read_in_order():
    text = torch.randint(0, 50, (100,), generator=torch.Generator().manual_seed(0))
    stream = RowStream(text, 3, 7)
    rows = torch.cat([w.inputs for w in take(stream, len(stream))])  # (P T, B)
    read = rows.t().flatten()
    assert read[:100].equal(text)
    assert read[100:].equal(text[: len(read) - 100])  # padded with the beginning


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("N", [100, 22, 2])
def test_ranks_read_columns_of_one_stream(N, world_size):
    B, T = 3, 7
    tokens = torch.arange(N)
    whole = RowStream(tokens, B * world_size, T)
    ranks = [RowStream(tokens, B, T, rank, world_size) for rank in range(world_size)]
    assert {len(r) for r in ranks} == {len(whole)}
    for window, *parts in zip(take(whole, 2 * len(whole)), *ranks):
        assert torch.cat([p.inputs for p in parts], 1).equal(window.inputs)
        assert torch.cat([p.targets for p in parts], 1).equal(window.targets)
        assert {p.index for p in parts} == {window.index}


@sizes
def test_position_at_every_window(N, B, T):
    tokens = torch.arange(N)
    stream = RowStream(tokens, B, T)
    P = len(stream)
    windows = take(stream, 3 * P)
    for number in range(2 * P):
        first = RowStream(tokens, B, T)
        take(first, number)
        position = first.state_dict()
        assert position == {"window": number % P, "passes": number // P}
        second = RowStream(tokens, B, T)
        second.load_state_dict(position)
        assert all(map(same, take(second, P), windows[number:]))
        assert second.state_dict() == {"window": number % P, "passes": number // P + 1}


def test_iteration_starts_at_the_stored_position():
    stream, other = (RowStream(torch.arange(100), 3, 7) for _ in range(2))
    parts = [w for length in (1, 3, 6, 2) for w in take(stream, length)]
    assert all(map(same, parts, take(other, 12)))
    early = iter(stream)  # made before a position is loaded, read after it
    stream.load_state_dict({"window": 3, "passes": 5})
    assert next(early).index == 3


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32], ids=str)
def test_windows_made_on_a_device(device, dtype):
    tokens = torch.arange(100).to(dtype)
    stream, other = (RowStream(tokens, 3, 7) for _ in range(2))
    take(stream, 4), take(other, 4)
    stream.to(torch.device(device))
    for window, expected in zip(take(stream, 9), take(other, 9), strict=True):
        assert window.inputs.device.type == device
        assert same(Window(window.inputs.cpu(), window.targets.cpu(), window.index), expected)


def test_position_of_a_longer_pass_is_an_error():
    with pytest.raises(InputError, match=r"window=5 must be at least 0 and below 5"):
        RowStream(torch.arange(100), 3, 7).load_state_dict({"window": 5, "passes": 0})


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((torch.arange(9), 0, 7), "batch_size"),
        ((torch.arange(9), 3, 0), "seq_len"),
        ((torch.arange(9), 3, 7, 0, 0), "world_size"),
        ((torch.arange(9), 3, 7, 2, 2), "rank"),
        ((torch.arange(9), 3, 7, -1, 2), "rank"),
        ((torch.arange(0), 3, 7), "tokens"),
        ((torch.zeros(3, 3, dtype=torch.int64), 3, 7), "tokens"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(InputError, match=f"^{name}="):
        RowStream(*arguments)
