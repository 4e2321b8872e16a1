"""Two layers at once by the CUDA kernels, in spans of time: emulated, and on a GPU if there is one.

T time steps, B rows, H hidden size, L layers.
"""

import contextlib

import pytest
import torch
from gru.emulator import races
from gru.test_cuda import H100, HALF, assert_near, case, numbers

from charrnn.gru import GATES, RESETS, cuda, reference
from charrnn.gru.cuda import lanes, layer, loss, plan, stack
from charrnn.gru.cuda.plan import Plan

pytestmark = pytest.mark.usefixtures("cuda_full_of_nan")


@pytest.fixture(params=["one_block", "groups"])
def short_spans(request, monkeypatch):
    """Spans of a few steps, by the kernels for small sizes and by those where blocks meet."""
    if request.param == "groups":
        monkeypatch.setattr(plan, "SMALL", 0)
    monkeypatch.setattr(plan, "LEAST_STEPS", 2)
    monkeypatch.setattr(lanes, "for_graph", True)  # on a GPU too
    plan.find.cache_clear()
    yield
    plan.find.cache_clear()


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("size", [(40, 7, 21, 1), (32, 5, 1, 1)])
def test_spans_change_no_bit(device, reset, size, short_spans, monkeypatch):
    """Of outputs, the final state and gradients, also through the first and the final state.

    Those of biases are sums of the spans' sums.
    """
    given, whole = case("features", *size), Plan.spans
    expected = numbers(cuda, device, torch.float32, given, reset, "sigmoid")
    for count in (2, 3):
        monkeypatch.setattr(plan, "SPANS", count)
        monkeypatch.setattr(Plan, "spans", lambda self, steps, layers: whole(self, steps, 2))
        found = numbers(cuda, device, torch.float32, given, reset, "sigmoid")
        assert all(map(torch.equal, found[:-2], expected[:-2]))
        assert_near(found[-2:], expected[-2:], 1e-6)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
def test_pairs(device, reset, gate, short_spans):
    for kind, size in (("table", (20, 7, 5, 2)), ("features", (24, 6, 17, 3))):
        given = case(kind, *size)
        found = numbers(cuda, device, torch.float32, given, reset, gate)
        expected = numbers(reference, "cpu", torch.float64, given, reset, gate)
        assert_near(found, expected, HALF)


@pytest.mark.parametrize("factor", [1e-3, 100])
def test_gradients_that_grow_or_fade_below(device, factor, short_spans, monkeypatch):
    """Both layers of a pair share a power of two, taken from the upper one's gradients."""
    given = case("table", 20, 5, 5, 2)
    given[3][1] = (given[3][1][0] * factor, *given[3][1][1:])
    found = numbers(cuda, device, torch.float32, given, "after", "sigmoid")
    monkeypatch.setattr(plan, "find_pairs", plan.find)
    alone = numbers(cuda, device, torch.float32, given, "after", "sigmoid")
    assert_near(found, alone, HALF / 10)


def test_dropout_between_a_pair(device, short_spans):
    """The mask that forward draws, span by span, is the one of backward."""
    inputs, _, state, weights, (grad, _) = case("one_hot", 32, 6, 5, 2)
    move = {"device": device, "dtype": torch.float32}
    weights = [tuple(w.to(**move).requires_grad_() for w in layer) for layer in weights]
    given = (inputs.to(device), None, state.to(**move), weights)
    bias = weights[0][2]

    def outputs():
        torch.manual_seed(1)
        return cuda.forward(*given, reset="after", gate="sigmoid", dropout=0.5)[0]

    grad = grad.to(**move)
    (found,) = torch.autograd.grad(outputs(), [bias], grad)
    step = found / found.norm()
    with torch.no_grad():
        bias += 0.05 * step
        above = (outputs() * grad).sum()
        bias -= 0.1 * step
        below = (outputs() * grad).sum()
    assert ((above - below) / 0.1 - found.norm()).abs() < 0.02 * found.norm()


class Clock:
    """Lanes that count what happens on each, and know what of the other is over by then."""

    both = True

    def __init__(self, device):
        self.now = [[0, 0], [0, 0]]

    @contextlib.contextmanager
    def on(self, lane):
        Clock.lane, Clock.current = lane, self
        yield

    def mark(self, lane):
        return list(self.now[lane])

    def wait(self, lane, mark):
        self.now[lane] = [*map(max, self.now[lane], mark)]

    def join(self):
        self.wait(0, self.now[1])


def test_a_span_waits_for_that_of_the_other_layer(emulated, short_spans, monkeypatch):
    launches = []

    def timed(launch):
        def call(self, *args):
            now = Clock.current.now[Clock.lane]
            launches.append((Clock.lane, args[-1].start, list(now)))
            now[Clock.lane] += 1
            return launch(self, *args)

        return call

    monkeypatch.setattr(stack, "Lanes", Clock)
    monkeypatch.setattr(layer.Forward, "__call__", timed(layer.Forward.__call__))
    monkeypatch.setattr(layer.Backward, "__call__", timed(layer.Backward.__call__))
    numbers(cuda, "cpu", torch.float32, case("one_hot", 32, 9, 5, 2), "after", "sigmoid")
    assert len(launches) == 16  # four spans, two layers, two directions
    for direction in (launches[:8], launches[8:]):
        done = {start: count[0] for lane, start, count in direction if lane == 0}
        assert all(count[0] > done[start] for lane, start, count in direction if lane == 1)
        waits = [count[0] for lane, _, count in direction if lane == 1]
        assert waits == [1, 2, 3, 4]  # and for no more than that


def test_lanes_of_a_gpu(monkeypatch):
    """Two streams: what each waits for, and where work goes."""
    said = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            said.append((self.name, "after", other.name))

        def record_event(self):
            return f"so far on {self.name}"

        def wait_event(self, event):
            said.append((self.name, "after", event))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("first"))
    monkeypatch.setattr(lanes, "second_stream", lambda first: Stream("second"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream.name)
    alone = lanes.Lanes(torch.device("cuda", 0))
    assert not alone.streams and not alone.both
    with lanes.two_lanes():
        two = lanes.Lanes(torch.device("cuda", 0))
    assert two.both and not lanes.for_graph
    assert [two.on(0), two.on(1)] == ["first", "second"]
    two.wait(1, two.mark(0))
    two.join()
    assert said == [
        ("second", "after", "first"), ("second", "after", "so far on first"),
        ("first", "after", "second"),
    ]  # fmt: skip


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("kind, layers", [("table", 2), ("features", 3), ("one_hot", 1)])
def test_no_memory_is_touched_in_uncertain_order(
    emulated, kind, layers, dropout, short_spans, monkeypatch
):
    """By two streams, in a step with its loss; it is where they do not wait for each other."""
    inputs, table, state, weights, (_, d_final) = case(kind, 32, 6, 5, layers)
    leaves = [w.float().requires_grad_() for w in (state, *(w for own in weights for w in own))]
    own = [tuple(leaves[i : i + 4]) for i in range(1, len(leaves), 4)]
    inputs = inputs.float().requires_grad_() if kind == "features" else inputs
    table = None if table is None else table.float().requires_grad_()
    decoder = torch.randn(7, 32, requires_grad=True), torch.randn(7, requires_grad=True)
    for waits in (True, False):
        with monkeypatch.context() as patch, races.Races(patch, waits) as watched:
            outputs, final = cuda.forward(
                inputs, table, leaves[0], own, reset="after", gate="sigmoid", dropout=dropout
            )
            nats = loss.linear_cross_entropy(outputs.flatten(0, 1), *decoder, torch.ones(30).long())
            torch.autograd.backward([nats, final], [None, d_final.float()])
        assert bool(watched.found) is not waits, watched.found[:3]


@pytest.mark.parametrize("reset", RESETS)
def test_what_runs_at_once_fits_at_once(reset):
    for hidden in (32, 128, 256, 300, 512, 1024, 2048):
        for count in (1, 16, 64, 128, 256, 1000):
            found = plan.find_pairs(hidden, count, reset == "before", False, H100)
            if isinstance(found, Plan) and found.pairs:
                grids = found.forward.grid, found.backward.grid
                assert 2 * max(grids) <= H100.multiprocessors


def test_which_sizes_are_pairs():
    found = {
        (hidden, count): plan.find_pairs(hidden, count, False, False, H100)
        for hidden in (128, 256, 512, 1024) for count in (16, 64, 128)
    }  # fmt: skip
    assert [size for size, one in found.items() if one.pairs] == [
        (128, 16), (128, 64), (128, 128), (256, 16), (256, 64), (256, 128), (512, 16), (512, 64),
        (512, 128), (1024, 16),
    ]  # fmt: skip
    assert found[512, 128].cut.units == 64
    assert found[256, 128].cut.units == found[512, 64].cut.units == 32
    assert found[512, 128].cut.units == found[512, 128].backward.cut.units == 64
    assert found[1024, 64].groups(3) == [range(0, 2), range(2, 3)]
    assert found[1024, 64].spans(100, 2) == [slice(0, 100)]
    assert [s.stop for s in found[512, 16].spans(101, 2)] == [25, 50, 75, 101]
    assert found[512, 16].spans(31, 2) == [slice(0, 31)] and len(found[512, 64].spans(99, 1)) == 1
