"""The CUDA kernels against the plain loop: on a CPU through the emulator, and on a GPU if there.

T time steps, B rows, V vocabulary size, H hidden size, I input size, L layers.
"""

import pytest
import torch
import torch.nn.functional as F

from charrnn.gru import GATES, RESETS, cuda, reference
from charrnn.gru.cuda import loss, nvrtc, plan
from charrnn.gru.cuda.cut import Cut

V, FEATURES = 7, 6
KINDS = ("features", "table", "one_hot")
HALF, EXACT = 1e-3, {torch.float32: 2e-6, torch.float64: 1e-13}
"""How far, relatively, from float64: of products of halves, and without them."""


pytestmark = pytest.mark.usefixtures("cuda_full_of_nan")


@pytest.fixture(params=["one_block", "groups"])
def kernels(request, monkeypatch):
    """Small sizes by the kernels for them, and by those where thread blocks meet."""
    if request.param == "groups":
        monkeypatch.setattr(plan, "SMALL", 0)
    plan.find.cache_clear()
    yield request.param
    plan.find.cache_clear()


@pytest.fixture
def groups(monkeypatch):
    """The kernels where thread blocks meet."""
    monkeypatch.setattr(plan, "SMALL", 0)
    plan.find.cache_clear()
    yield
    plan.find.cache_clear()
    plan.kernels.cache_clear()


@pytest.fixture
def without_tf32():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def case(kind, hidden, steps, count, num_layers):
    """Inputs, table, state, and each layer's weights in float64, and gradients that come in."""
    torch.manual_seed(hidden)
    float64 = {"dtype": torch.float64}
    size, bound = V if kind == "one_hot" else FEATURES, 1.5 * hidden**-0.5
    weights = [
        tuple((torch.rand(shape, **float64) * 2 - 1) * bound for shape in (
            (3 * hidden, hidden if layer else size), (3 * hidden, hidden), 3 * hidden, 3 * hidden
        ))
        for layer in range(num_layers)
    ]  # fmt: skip
    inputs = torch.randint(V, (count, steps)).t()  # not contiguous
    if kind == "features":
        inputs = torch.randn(steps, count, FEATURES, **float64)
    table = torch.randn(V, FEATURES, **float64) if kind == "table" else None
    state = torch.randn(num_layers, count, hidden, **float64) / 2
    grads = torch.randn(steps, count, hidden, **float64), torch.randn_like(state)
    return inputs, table, state, weights, grads


def numbers(backend, device, dtype, given, reset, gate, scale=1.0):
    """Outputs, the final state, and all gradients, where one comes in through either."""
    inputs, table, state, weights, grads = given
    move = {"device": device, "dtype": dtype}
    indices = not inputs.is_floating_point()
    inputs = inputs.to(device) if indices else inputs.to(**move).requires_grad_()
    table = None if table is None else table.to(**move).requires_grad_()
    state = state.to(**move).requires_grad_()
    weights = [tuple(w.to(**move).requires_grad_() for w in layer) for layer in weights]
    results = backend.forward(inputs, table, state, weights, reset=reset, gate=gate)
    leaves = [t for t in (None if indices else inputs, table, state) if t is not None]
    leaves += [w for layer in weights for w in layer]
    grads = [(g * scale).to(**move) for g in grads]
    return [*results, *torch.autograd.grad(results, leaves, grads)]


def parameters(device, hidden):
    """Arguments of two layers in float32, whose weights want gradients, and one for outputs."""
    inputs, _, state, weights, (grad, _) = case("one_hot", hidden, 3, 5, 2)
    move = {"device": device, "dtype": torch.float32}
    weights = [tuple(w.to(**move).requires_grad_() for w in layer) for layer in weights]
    return (inputs.to(device), None, state.to(**move), weights), grad.to(**move)


def assert_near(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        assert (a - b).norm() <= tolerance * b.norm()


# H 20 is padded to 32 or 128; one row; rows in two and three items of 16; odd numbers of them.
SIZES = [(32, 1, 1, 1), (20, 3, 5, 2), (100, 2, 37, 1)]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
def test_persistent_kernels(device, reset, gate, kernels):
    for kind, size in zip(KINDS, SIZES):
        given = case(kind, *size)
        found = numbers(cuda, device, torch.float32, given, reset, gate)
        expected = numbers(reference, "cpu", torch.float64, given, reset, gate)
        assert_near(found, expected, HALF)


@pytest.mark.parametrize("reset", RESETS)
def test_several_items_on_few_multiprocessors(device, reset, groups, monkeypatch):
    """Items by the three that a group goes round, with the next one's rows brought in advance."""
    gpu = plan.card(0)
    monkeypatch.setattr(plan, "card", lambda index: plan.Card(gpu.capability, 4, gpu.shared))
    given = case("one_hot", 40, 3, 90, 1)
    found = plan.find(40, 90, reset == "before", False, plan.card(0))
    assert found.forward.cut.ahead and found.forward.grid <= 4
    found = numbers(cuda, device, torch.float32, given, reset, "sigmoid")
    assert_near(found, numbers(reference, "cpu", torch.float64, given, reset, "sigmoid"), HALF)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
def test_wide_blocks(device, reset, gate, groups, monkeypatch):
    """Thread blocks of 64 units."""
    gpu = plan.card(0)
    monkeypatch.setattr(plan, "card", lambda index: plan.Card(gpu.capability, 4, gpu.shared))
    found = plan.find(128, 20, reset == "before", gate == "hard_sigmoid", plan.card(0))
    assert [(n.grid, n.cut.units) for n in (found.forward, found.backward)] == [(4, 64)] * 2
    given = case("one_hot", 128, 2, 20, 1)
    found = numbers(cuda, device, torch.float32, given, reset, gate)
    assert_near(found, numbers(reference, "cpu", torch.float64, given, reset, gate), HALF)


@pytest.mark.parametrize("slots", [1, 2])
def test_gradients_asked_for_in_chunks(device, slots, groups, monkeypatch):
    """In three by one, one or two of which fit in shared memory; for one, two and three items."""
    gpu = plan.card(0)
    monkeypatch.setattr(plan, "card", lambda index: plan.Card(gpu.capability, 7, gpu.shared))
    for count in (5, 20, 40):
        given, found = case("one_hot", 224, 3, count, 1), []
        for chunk, some in ((3, 3), (1, slots)):
            monkeypatch.setattr(Cut, "chunk", chunk)
            monkeypatch.setattr(Cut, "slots", some)
            plan.find.cache_clear()
            plan.kernels.cache_clear()
            backward = plan.find(224, count, False, False, plan.card(0)).backward
            assert (backward.grid, backward.cut.depths) == (7, [3])
            assert backward.cut.ahead == (count > 16)
            found.append(numbers(cuda, device, torch.float32, given, "after", "sigmoid"))
        assert all(map(torch.equal, *found))
    expected = numbers(reference, "cpu", torch.float64, given, "after", "sigmoid")
    assert_near(found[0], expected, HALF)


@pytest.mark.parametrize("reset", RESETS)
def test_forward_leaves_an_empty_mailbox(device, reset, groups):
    """For the exchange of backward, rows that are not there included."""
    given, _ = parameters(device, 32)
    outputs, _ = cuda.forward(*given, reset=reset, gate="sigmoid")
    node = outputs.grad_fn
    while not hasattr(node, "d_gates"):  # H may be padded
        node = node.next_functions[0][0]
    assert len(node.d_gates) == 2
    assert all((made.view(torch.int16) == -1).all() for made in node.d_gates)
    outputs.sum().backward(retain_graph=True)
    assert node.d_gates is None  # it is full


@pytest.mark.parametrize("reset", RESETS)
def test_backward_twice(device, reset, kernels):
    """The second one finds the mailbox full that forward had left empty."""
    given, grad = parameters(device, 32)
    outputs, _ = cuda.forward(*given, reset=reset, gate="sigmoid")
    leaves = [w for layer in given[-1] for w in layer]
    first, second, third = (
        torch.autograd.grad(outputs, leaves, factor * grad, retain_graph=True)
        for factor in (1, 2, -1)
    )
    assert all(
        torch.equal(b, 2 * a) and torch.equal(c, -a) for a, b, c in zip(first, second, third)
    )


@pytest.mark.parametrize("kind", ["table", "features"])
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_products_of_inputs_in_16_bits(device, kind, low, kernels, monkeypatch):
    """As autocast has it: operands are rounded, sums are not."""
    given = inputs, table, state, weights, grads = case(kind, 20, 3, 5, 2)
    first = (weights[0][0].to(low).double(), *weights[0][1:])
    if kind == "table":
        rounded = inputs, table.to(low).double(), state, [first, *weights[1:]], grads
    else:
        rounded = inputs.to(low).double(), table, state, [first, *weights[1:]], grads
    expected, exact = (
        numbers(reference, "cpu", torch.float64, each, "after", "sigmoid")
        for each in (rounded, given)
    )
    monkeypatch.setattr(cuda, "low_type", lambda state: low)
    found = numbers(cuda, device, torch.float32, given, "after", "sigmoid")
    assert_near(found[:2], expected[:2], HALF)
    assert_near(found[2:], expected[2:], 4 * HALF)
    if low == torch.bfloat16:
        near, far = (
            (found[0].detach().double().cpu() - x[0].detach()).norm() for x in (expected, exact)
        )
        assert near < far / 2


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
def test_exact_kernels(device, reset, gate, dtype, without_tf32):
    for kind, size in zip(KINDS, [(5, 1, 1, 1), (33, 3, 17, 2), (20, 4, 3, 1)]):
        given = case(kind, *size)
        found = numbers(cuda, device, dtype, given, reset, gate)
        expected = numbers(reference, "cpu", torch.float64, given, reset, gate)
        assert_near(found, expected, EXACT[dtype])


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_gradients_of_any_size(device, scale, kernels):
    """They travel as halves, which would overflow or vanish by themselves."""
    given = case("table", 20, 3, 5, 2)
    found = numbers(cuda, device, torch.float32, given, "after", "sigmoid", scale)
    expected = numbers(reference, "cpu", torch.float64, given, "after", "sigmoid", scale)
    assert_near(found, expected, HALF)


@pytest.mark.parametrize("reset", RESETS)
def test_gradients_that_begin_anywhere(device, reset, kernels):
    """As a part of a larger tensor, such as torch.cat's gradient has; kernels load pairs."""
    inputs, _, state, weights, grads = case("one_hot", 32, 3, 5, 1)
    move = {"device": device, "dtype": torch.float32}
    state, weights = state.to(**move).requires_grad_(), [tuple(w.to(**move) for w in weights[0])]
    inputs, found = inputs.to(device), []
    for begin in (0, 1):
        results = cuda.forward(inputs, None, state, weights, reset=reset, gate="sigmoid")
        some = [torch.empty(g.numel() + begin, device=device)[begin:].view_as(g) for g in grads]
        for part, grad in zip(some, grads):
            part.copy_(grad)
        found += torch.autograd.grad(results, [state], some)
    assert torch.equal(*found)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_is_seen(device, bad, reset, kernels):
    """As a GradScaler needs it: in every parameter."""
    given = case("one_hot", 32, 2, 3, 1)
    given[-1][0][1, 2, 3] = bad
    found = numbers(cuda, device, torch.float32, given, reset, "sigmoid")
    assert not any(g.isfinite().all() for g in found[3:])


def test_same_bits_again(device, kernels):
    given = case("table", 40, 4, 37, 2)
    first, second = (
        numbers(cuda, device, torch.float32, given, "after", "sigmoid") for _ in range(2)
    )
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("reset", RESETS)
def test_inference_is_training_without_gradients(device, reset, kernels):
    given, _ = parameters(device, 20)
    expected = cuda.forward(*given, reset=reset, gate="sigmoid")
    with torch.no_grad():
        found = cuda.forward(*given, reset=reset, gate="sigmoid")
    assert all(map(torch.equal, found, expected))


def test_dropout_between_layers(device):
    """Masks drawn again from the same seed give the same numbers, others do not."""
    given, _ = parameters(device, 32)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs, final = cuda.forward(*given, reset="after", gate="sigmoid", dropout=0.5)
        (grad,) = torch.autograd.grad(outputs.sum(), [given[-1][0][1]])
        found.append((outputs, final, grad))
    assert all(map(torch.equal, found[0], found[1]))
    assert found[0][1][0].equal(found[2][1][0]) and not found[0][0].equal(found[2][0])
    assert not found[0][2].equal(found[2][2])


@pytest.mark.parametrize("wrong", [V, -1, 1 << 40])
@pytest.mark.parametrize("reset", RESETS)
def test_an_index_out_of_range(device, reset, wrong, kernels):
    """It is told, and makes its own row not a number, but no other one."""
    inputs, _, state, weights, _ = case("one_hot", 32, 3, 20, 1)
    move = {"device": device, "dtype": torch.float32}
    weights = [tuple(w.to(**move).requires_grad_() for w in weights[0])]
    inputs, given = inputs.to(device), (None, state.to(**move), weights)
    expected, _ = cuda.forward(inputs, *given, reset=reset, gate="sigmoid")
    bad = inputs.clone()
    bad[1, 17] = wrong
    outputs, _ = cuda.forward(bad, *given, reset=reset, gate="sigmoid")
    others = torch.arange(20, device=device) != 17
    assert torch.equal(outputs[:, others], expected[:, others])
    assert torch.equal(outputs[0, 17], expected[0, 17]) and outputs[1:, 17].isnan().all()
    assert torch.autograd.grad(outputs.sum(), weights[0])[1].isnan().any()
    with pytest.raises(IndexError, match=rf"index {wrong if wrong < 99 else 0} is none of .* {V} "):
        cuda.forward(bad, *given, reset=reset, gate="sigmoid")
    cuda.forward(inputs, *given, reset=reset, gate="sigmoid")


def test_a_wait_in_vain_is_told(groups, emulated, monkeypatch):
    """Only the emulator: on a GPU it would end the process's CUDA."""
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, other: self)  # no first state
    _, _, state, weights, _ = case("one_hot", 32, 2, 16, 1)
    given = (None, state.float(), [tuple(w.float() for w in weights[0])])
    with pytest.raises(RuntimeError, match=r"waited in vain.*T=2, B=16, H=32"):
        cuda.forward(torch.zeros(2, 16, dtype=torch.int64), *given, reset="after", gate="sigmoid")


@pytest.mark.parametrize("size", [1, 31, 300])
def test_loss_is_cross_entropy(device, size):
    torch.manual_seed(size)
    given = [torch.randn(shape, device=device) for shape in ((29, 5), (size, 5), (size,))]
    leaves = [tensor.requires_grad_() for tensor in given]
    targets = torch.randint(size, (29,), device=device)
    targets[3] = -100
    expected = F.cross_entropy(F.linear(*leaves), targets)
    found = loss.linear_cross_entropy(*leaves, targets)
    with torch.no_grad():
        assert torch.equal(loss.linear_cross_entropy(*leaves, targets), found)
    for factor in (1, 3):
        a, b = (
            torch.autograd.grad(x * factor, leaves, retain_graph=x is expected or factor == 1)
            for x in (found, expected)
        )
        for x, y in zip((found, *a), (expected, *b)):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
        found = loss.linear_cross_entropy(*leaves, targets)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, 65536.0])
def test_loss_with_operands_of_16_bits(device, dtype, factor):
    """Shares of a mean over many rows, and of a GradScaler's factor, are in range."""
    torch.manual_seed(0)
    given = [torch.randn(shape, device=device) for shape in ((999, 5), (31, 5), (31,))]
    leaves = [tensor.requires_grad_() for tensor in given]
    targets = torch.randint(31, (999,), device=device)
    found = loss.LinearCrossEntropy.apply(*leaves, targets, dtype, True)
    expected = F.cross_entropy(F.linear(*leaves), targets)
    grads = (torch.autograd.grad(x * factor, leaves) for x in (found, expected))
    for a, b in zip(*grads):
        assert (a - b).norm() < (4e-3 if dtype == torch.float16 else 1e-2) * b.norm()


def test_loss_of_a_target_out_of_range(device):
    given = (torch.ones(1, 2, device=device), torch.ones(3, 2, device=device))
    bias, target = torch.ones(3, device=device), torch.tensor([3], device=device)
    assert loss.linear_cross_entropy(*given, bias, target).isnan()
    with pytest.raises(IndexError, match="index 3 is none of the vocabulary of 3"):
        nvrtc.raise_failure()


H100, ADA = plan.Card((9, 0), 132, 227 << 10), plan.Card((8, 9), 128, 99 << 10)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gpu", [H100, ADA], ids=["H100", "Ada"])
def test_every_plan_fits(reset, gpu):
    for hidden in (1, 32, 100, 128, 256, 384, 512, 768, 1000, 1024, 1500, 2048):
        for count in (1, 16, 17, 64, 128, 256, 1000, 4096):
            some = plan.rows_at_once(hidden, count, reset == "before", False, gpu)
            found = plan.find(hidden, some, reset == "before", False, gpu)
            if isinstance(found, str):
                assert "multiprocessors" in found and hidden > 1024
                continue
            for launch in (found.forward, found.backward):
                assert launch.cut.hidden >= hidden and launch.shared <= gpu.shared
                if not launch.cut.small:
                    assert launch.grid <= gpu.multiprocessors
                    assert launch.grid % launch.cut.blocks == 0


def test_more_rows_than_one_plan_takes(device, groups, monkeypatch):
    given, right = case("one_hot", 40, 2, 45, 2), plan.find
    expected = numbers(reference, "cpu", torch.float64, given, "after", "sigmoid")

    def find(hidden, rows, *variant):
        return "too many" if rows > 16 else right(hidden, rows, *variant)

    with monkeypatch.context() as patch:
        patch.setattr(plan, "find", find)
        found = numbers(cuda, device, torch.float32, given, "after", "sigmoid")
    assert_near(found, expected, HALF)


def test_why_there_is_no_plan():
    assert "below 8.0" in plan.find(128, 16, False, False, plan.Card((7, 5), 68, 64 << 10))
    assert "2048" in plan.find(3000, 16, False, False, H100)
    assert "multiprocessors" in plan.find(1024, 16, False, False, plan.Card((8, 0), 20, 163 << 10))
    assert "cuDNN is faster" in plan.why_not_auto(2048, 128, H100)
    assert "cuDNN is faster" in plan.why_not_auto(64, 16, H100)
    assert plan.why_not_auto(64, 16, H100, True) is plan.why_not_auto(64, 64, H100) is None
    assert plan.why_not_auto(128, 16, H100) is None
    assert plan.why_not_auto(128, 64, H100) is None
    assert plan.why_not_auto(512, 64, H100) is None
