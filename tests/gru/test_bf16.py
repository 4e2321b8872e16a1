"""Products of bfloat16 operands: against float64 with rounded operands, dispatch, and memory.

T time steps, B rows, V vocabulary size, H hidden size, I input size.
"""

import functools
import types

import pytest
import torch
import torch.nn.functional as F

from charrnn.errors import InputError
from charrnn.gru import GATES, RESETS, bf16, build, loss, module, native, reference
from charrnn.models import GRUEncode

BEST = build.library().bf16_path()
PATHS = [name for name, number in bf16.PATHS.items() if 0 < number <= BEST]
pytestmark = pytest.mark.usefixtures("full_of_nan")
needs_path = pytest.mark.skipif(not PATHS, reason="the processor has neither AMX nor AVX512-BF16")


@pytest.fixture(autouse=True)
def forget_choices():
    yield
    bf16.choose.cache_clear()
    module.print_once.cache_clear()


@pytest.fixture(params=PATHS or ["amx"])
def mixed(request, monkeypatch):
    """A context in which products take bfloat16 operands, by one path of this processor."""
    monkeypatch.setenv(bf16.VARIABLE, request.param)
    return functools.partial(torch.autocast, "cpu", torch.bfloat16)


class RoundedLinear(torch.autograd.Function):
    """x W^T with the operands of all three products rounded to bfloat16, sums in float64."""

    @staticmethod
    def forward(ctx, x, w):
        x, w = (t.to(torch.bfloat16).double() for t in (x, w))
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        g = g.to(torch.bfloat16).double()
        return g @ w, g.flatten(0, -2).t() @ x.flatten(0, -2)


def rounded_linear(x, w, b):
    return RoundedLinear.apply(x, w) + b


def forward_and_gradients(backend, kind, inputs, leaves, gate, reset):
    """Outputs, final state and all gradients of as many layers as the state has."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    state, first, *weights = leaves if kind != "one_hot" else (leaves[0], None, *leaves[1:])
    x, table = (first, None) if kind == "features" else (inputs, first)

    def linear(x, w, b):  # the product of a table is float32
        return F.linear(x, w, b) if x is table else rounded_linear(x, w, b)

    with pytest.MonkeyPatch.context() as patch:
        rounded = types.SimpleNamespace(embedding=F.embedding, linear=linear, dropout=F.dropout)
        patch.setattr(reference, "F", rounded)
        output, final = backend.forward(
            x,
            table,
            state,
            [weights[i : i + 4] for i in range(0, len(weights), 4)],
            reset=reset,
            gate=gate,
        )
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(output.shape, generator=generator).to(output.dtype)
    objective = (output * factors).sum() + (final * final).sum()
    return [output, final, *torch.autograd.grad(objective, leaves)]


def check_layers(kind, reset, gate, mixed, layers, steps, rows, hidden, size):
    """Twice the same bits, and those of float64 with rounded operands but for rounding."""
    torch.manual_seed(hidden)
    inputs, leaves = torch.randint(size, (steps, rows)), [torch.randn(layers, rows, hidden)]
    width = size if kind != "table" else size + 3
    if kind != "one_hot":
        leaves.append(torch.randn(*((steps, rows) if kind == "features" else (size,)), width))
    for layer in range(layers):
        w = [torch.randn(3 * hidden, k) * k**-0.5 for k in (hidden if layer else width, hidden)]
        leaves += [*w, *torch.randn(2, 3 * hidden)]
    with mixed():
        found = forward_and_gradients(native, kind, inputs, leaves, gate, reset)
        again = forward_and_gradients(native, kind, inputs, leaves, gate, reset)
    assert all(map(torch.equal, found, again))
    doubles = [leaf.double() for leaf in leaves]
    expected = forward_and_gradients(reference, kind, inputs, doubles, gate, reset)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        # A rounding that falls the other way, and what follows from it. A hard gate on the other
        # side of its corner changes one element by all of its gradient.
        assert (a - b).norm() <= (2e-2 if gate == "hard_sigmoid" else 3e-3) * b.norm()


@needs_path
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", ["features", "table", "one_hot"])
def test_layers_equal_rounded_float64(kind, reset, gate, threads, mixed):
    # One of everything; less than a tile and a bit more than one; more rows than two tiles, several
    # chunks of terms and of input rows.
    for sizes in [(1, 1, 1, 1, 1), (2, 6, 17, 33, 20), (1, 40, 50, 47, 31)]:
        check_layers(kind, reset, gate, mixed, *sizes)


@needs_path
@pytest.mark.parametrize("rows", [15, 16, 31, 32, 33, 65])
def test_tails(rows, threads, mixed):
    """Sizes around those of tiles, of vectors, and of a padding of 32."""
    for hidden, reset in zip([15, 16, 17, 31, 32, 48, 49, 64], RESETS * 4):
        check_layers("features", reset, "sigmoid", mixed, 1, 3, rows, hidden, rows - 14)


@needs_path
@pytest.mark.parametrize("reset", RESETS)
def test_inference_equals_training(reset, threads, mixed):
    torch.manual_seed(0)
    model = GRUEncode(9, 37, 2, reset=reset, backend="native")
    inputs, state = torch.randint(9, (9, 5)), torch.randn(2, 5, 37)
    with mixed():
        expected = model(inputs, state)
        with torch.no_grad():
            assert all(map(torch.equal, model(inputs, state), expected))


@needs_path
def test_frozen_weights_get_no_gradient(mixed):
    torch.manual_seed(0)
    model = GRUEncode(9, 20, 1, backend="native")
    inputs, targets = torch.randint(9, (2, 9, 5))
    grads = []
    for frozen in (False, True):
        for name in ("weight_ih_l0", "weight_hh_l0"):
            model.gru.get_parameter(name).requires_grad_(not frozen)
        model.zero_grad()
        with mixed():
            model.loss(inputs, targets, torch.zeros(1, 5, 20))[0].backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert grads[1].pop("gru.weight_ih_l0") is grads[1].pop("gru.weight_hh_l0") is None
    assert all(torch.equal(grad, grads[0][name]) for name, grad in grads[1].items())


@needs_path
@pytest.mark.parametrize("size", [1, 31, 300])
def test_loss_equals_rounded_float64(size, threads, mixed):
    torch.manual_seed(size)
    leaves = [torch.randn(*n, requires_grad=True) for n in ((290, 45), (size, 45), (size,))]
    targets = torch.randint(size, (290,))
    targets[3] = -100
    with mixed():
        found = loss.linear_cross_entropy(*leaves, targets)
        with torch.no_grad():
            assert torch.equal(loss.linear_cross_entropy(*leaves, targets), found)
        nats = loss.linear_nats(*leaves, targets)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logits = rounded_linear(*doubles)
    each = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(nats.double(), each, rtol=1e-5, atol=1e-5)
    expected = each.sum() / 289
    assert abs(found.item() - expected.item()) <= 1e-5 * expected.item()
    for factor in (1, 3):
        a = torch.autograd.grad(found * factor, leaves, retain_graph=True)
        b = torch.autograd.grad(expected * factor, doubles, retain_graph=True)
        for x, y in zip(a, b):
            assert (x - y).norm() <= 5e-3 * max(y.norm(), 1e-6)


@needs_path
def test_loss_of_frozen_weights_and_of_a_bad_target(mixed):
    inputs, weight = torch.randn(6, 4, requires_grad=True), torch.randn(5, 4)
    bias, targets = torch.randn(5), torch.randint(5, (6,))
    with mixed():
        (found,) = torch.autograd.grad(
            loss.linear_cross_entropy(inputs, weight, bias, targets), [inputs]
        )
        with pytest.raises(IndexError, match="vocabulary"):
            loss.linear_cross_entropy(inputs, weight, bias, targets + 5)
    (expected,) = torch.autograd.grad(
        F.cross_entropy(F.linear(inputs, weight, bias), targets), [inputs]
    )
    assert (found - expected).norm() <= 2e-2 * expected.norm()


@needs_path
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(bad, mixed):
    inputs = torch.randn(40, 9)
    inputs[33, 2] = bad
    weight, bias, targets = torch.ones(20, 9), torch.zeros(20), torch.zeros(40, dtype=torch.int64)
    state = torch.zeros(1, 40, 9)
    weights = [torch.full((27, 9), 0.1), torch.zeros(27, 9), torch.zeros(27), torch.zeros(27)]
    with mixed():
        assert not loss.linear_cross_entropy(inputs, weight, bias, targets).isfinite()
        output, _ = native.forward(
            inputs[None], None, state, [weights], reset="after", gate="sigmoid"
        )
    if bad is torch.nan:
        assert output[0, 33].isnan().all() and output[0, :33].isfinite().all()


@needs_path
@pytest.mark.parametrize("reset", RESETS)
def test_a_model_keeps_float32(reset, mixed):
    """State, gradients and losses; evaluation is the mean of what training reports."""
    torch.manual_seed(0)
    model = GRUEncode(31, 40, 2, reset=reset, backend="native")
    inputs, targets = torch.randint(31, (2, 30, 5))
    state = model.initial_state(5)
    mean, _ = model.loss(inputs, targets, state)
    exact = torch.autograd.grad(mean, list(model.parameters()))
    with mixed():
        found, after = model.loss(inputs, targets, state)
        with torch.no_grad():
            nats, final = model.nll(inputs, targets, state)
            units = model.activations(inputs, state)
    assert found.dtype == nats.dtype == after.dtype == units.dtype == torch.float32
    assert torch.equal(after, final) and torch.equal(units[:, -1], final)
    torch.testing.assert_close(nats.mean(), found.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found, mean, rtol=1e-3, atol=0)
    for a, b in zip(torch.autograd.grad(found, list(model.parameters())), exact):
        assert 0 < (a - b).norm() <= 3e-2 * b.norm()


def outputs(path):
    """Of a small layer under autocast, and a path of the environment variable."""
    torch.manual_seed(0)
    weights = [torch.randn(12, 4), torch.randn(12, 4), torch.randn(12), torch.randn(12)]
    with torch.autocast("cpu", torch.bfloat16, enabled=path is not None):
        inputs, state = torch.randn(5, 3, 4), torch.zeros(1, 3, 4)
        return native.forward(inputs, None, state, [weights], reset="after", gate="sigmoid")[0]


def test_off_is_float32(monkeypatch, capfd):
    monkeypatch.setenv(bf16.VARIABLE, "off")
    assert torch.equal(outputs("off"), outputs(None))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("best", [0, 1], ids=["nothing", "avx512"])
def test_without_amx_one_line_and_float32(best, monkeypatch, capfd):
    monkeypatch.delenv(bf16.VARIABLE, raising=False)
    monkeypatch.setattr(build, "library", lambda: types.SimpleNamespace(bf16_path=lambda: best))
    with torch.autocast("cpu", torch.bfloat16):
        assert bf16.path() == bf16.path() == 0
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and "float32" in printed and "AMX" in printed
    with pytest.raises(InputError, match="does not have"):
        bf16.choose("amx")


@pytest.mark.skipif(BEST < bf16.PATHS["amx"], reason="the processor has no AMX")
def test_auto_is_amx(monkeypatch, capfd):
    monkeypatch.delenv(bf16.VARIABLE, raising=False)
    found = outputs("auto")
    monkeypatch.setenv(bf16.VARIABLE, "amx")
    assert torch.equal(found, outputs("amx")) and not torch.equal(found, outputs(None))
    assert capfd.readouterr().err == ""


def test_an_unknown_value(monkeypatch):
    monkeypatch.setenv(bf16.VARIABLE, "vnni")
    with pytest.raises(InputError, match="CHARRNN_BF16=vnni: must be auto, off, avx512, amx"):
        outputs("vnni")


def test_float16_and_float64_are_as_ever(monkeypatch):
    monkeypatch.setenv(bf16.VARIABLE, "amx")
    with torch.autocast("cpu", torch.float16):
        assert bf16.path() == 0
    model = GRUEncode(5, 6, 1, backend="native").double()
    inputs, state = torch.randint(5, (4, 2)), model.initial_state(2)
    expected, _ = model.loss(inputs, inputs, state)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = model.loss(inputs, inputs, state)
    assert found.dtype == torch.float64 and torch.equal(found, expected)


@needs_path
def test_kept_memory_has_no_influence(mixed):
    """Large blocks that an earlier call gave back, full of NaN."""
    torch.manual_seed(0)
    model = GRUEncode(96, 140, 2, reset="before", backend="native")
    inputs, targets = torch.randint(96, (2, 40, 40))
    found = []
    for state in (torch.zeros(2, 40, 140), torch.full((2, 40, 140), torch.nan)) * 2:
        with mixed():
            mean, _ = model.loss(inputs, targets, state)
        found.append([mean, *torch.autograd.grad(mean, list(model.parameters()))])
    assert found[1][0].isnan()
    assert all(map(torch.equal, found[0], found[2]))
