"""The native kernels against the reference: every variant, odd sizes, buffers filled with NaN.

T time steps, B rows, V vocabulary size, H hidden size.
"""

import itertools

import pytest
import torch

from charrnn.gru import GATES, GRU, RESETS, native

V, FEATURES = 7, 6
KINDS = ("features", "table", "one_hot")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
pytestmark = pytest.mark.usefixtures("full_of_nan")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layers(kind, num_layers, hidden, reset="after", gate="sigmoid", dtype=torch.float64):
    """A GRU with random weights and biases, a little larger than at the start of training."""
    torch.manual_seed(hidden)
    size = V if kind == "one_hot" else FEATURES
    gru = GRU(size, hidden, num_layers, reset=reset, gate=gate).to(dtype)
    for parameter in gru.parameters():
        torch.nn.init.uniform_(parameter, -1.5 * hidden**-0.5, 1.5 * hidden**-0.5)
    return gru


def window(kind, gru, steps, rows):
    dtype = gru.weight_hh_l0.dtype
    table = None
    if kind == "features":
        inputs = torch.randn(rows, steps, FEATURES, dtype=dtype).transpose(0, 1).requires_grad_()
    else:
        inputs = torch.randint(V, (rows, steps)).t()  # not contiguous
    if kind == "table":
        table = torch.randn(V, FEATURES, dtype=dtype, requires_grad=True)
    state = torch.randn(gru.num_layers, rows, gru.hidden_size, dtype=dtype, requires_grad=True)
    return inputs, state, table


def numbers(gru, backend, inputs, state, table):
    """Outputs, the final state, and all gradients, through both."""
    gru.backend = backend
    output, final = gru(inputs, state, table)
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in (output, final)]
    leaves = [x for x in (inputs, state, table) if x is not None and x.requires_grad]
    leaves += list(gru.parameters())
    return [output, final, *torch.autograd.grad([output, final], leaves, grads)]


def assert_near(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a.detach() - b.detach()).norm() <= tolerance * b.detach().norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_native_equals_reference(kind, reset, gate, dtype, threads):
    # Fewer rows than threads; a vector and a bit of units; more rows than a tile, in odd numbers;
    # a window of more than one chunk. Only the last three are large enough for two threads.
    sizes = [(1, 5, 1, 1), (2, 17, 3, 3), (3, 48, 2, 19), (1, 33, 31, 11), (2, 65, 31, 1)]
    for num_layers, hidden, steps, rows in sizes:
        gru = layers(kind, num_layers, hidden, reset, gate, dtype)
        case = window(kind, gru, steps, rows)
        assert_near(
            numbers(gru, "native", *case), numbers(gru, "reference", *case), TOLERANCE[dtype]
        )


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind, reset, gate, one_thread):
    gru = layers(kind, 2, 3, reset, gate)
    gru.backend = "native"
    inputs, state, table = window(kind, gru, 3, 2)
    leaves = [x for x in (inputs, table) if x is not None and x.requires_grad]
    names = [name for name, _ in gru.named_parameters()]

    def call(state, *values):
        parameters = dict(zip(names, values[len(leaves) :]))
        x, t = inputs, table
        if kind == "features":
            x = values[0]
        elif kind == "table":
            t = values[0]
        return torch.func.functional_call(gru, parameters, (x, state, t))

    assert torch.autograd.gradcheck(call, (state, *leaves, *gru.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_reproducible(kind, threads):
    gru = layers(kind, 2, 37, dtype=torch.float32)
    case = window(kind, gru, 23, 9)
    first, second = (numbers(gru, "native", *case) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("reset", RESETS)
def test_inference_equals_training(reset, threads):
    gru = layers("one_hot", 2, 19, reset, dtype=torch.float32)
    gru.backend = "native"
    inputs, state, _ = window("one_hot", gru, 9, 5)
    with torch.no_grad():
        found = gru(inputs, state)
    assert all(map(torch.equal, found, gru(inputs, state)))


def test_frozen_weights_get_no_gradient():
    gru = layers("table", 1, 9)
    gru.weight_hh_l0.requires_grad_(False)
    gru.weight_ih_l0.requires_grad_(False)
    case = inputs, state, table = window("table", gru, 4, 3)
    expected = numbers(gru.requires_grad_(), "reference", *case)
    gru.weight_hh_l0.requires_grad_(False)
    gru.weight_ih_l0.requires_grad_(False)
    gru.backend = "native"
    gru.zero_grad()
    output, final = gru(inputs, state, table)
    output.sum().backward()
    assert gru.weight_hh_l0.grad is None and gru.weight_ih_l0.grad is None
    assert_near([output, final], expected[:2], 1e-10)
    gru.backend = "reference"
    (expected,) = torch.autograd.grad(gru(inputs, state, table)[0].sum(), [table])
    assert_near([table.grad], [expected], 1e-10)


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("number", [0, 1], ids=["outputs", "final_state"])
def test_gradients_through_one_result(number, num_layers):
    gru = layers("features", num_layers, 9)
    case = inputs, state, _ = window("features", gru, 5, 3)
    leaves, found = [inputs, state, *gru.parameters()], {}
    for gru.backend in ("native", "reference"):
        loss = gru(*case)[number].sin().sum()
        found[gru.backend] = torch.autograd.grad(loss, leaves)
    assert_near(found["native"], found["reference"], 1e-10)


def test_dropout_between_layers():
    gru = layers("features", 3, 9)
    gru.dropout = 0.4
    case = window("features", gru, 5, 3)
    found = []
    for backend in ("native", "reference"):
        torch.manual_seed(1)
        found.append(numbers(gru, backend, *case))
    assert_near(*found, 1e-10)


def test_bfloat16_is_computed_in_float32():
    gru = layers("table", 2, 9, dtype=torch.float32)
    inputs, state, table = window("table", gru, 5, 3)
    gru.backend = "native"
    expected, _ = gru(inputs, state, table)
    gru.bfloat16()
    found, final = gru(inputs, state.bfloat16(), table.bfloat16())
    found.float().sum().backward()
    assert found.dtype == final.dtype == gru.weight_hh_l0.grad.dtype == torch.bfloat16
    assert_near([found.float()], [expected], 3e-2)


def test_an_index_out_of_range():
    gru = layers("one_hot", 1, 3)
    gru.backend = "native"
    with pytest.raises(IndexError, match="vocabulary"):
        gru(torch.tensor([[V]]), torch.zeros(1, 1, 3, dtype=torch.float64))


def test_tanh_at_all_magnitudes():
    """Through a layer whose weights are zero and whose update gate is 0."""
    bias = torch.cat([torch.logspace(-12, 3, 61, dtype=torch.float64), torch.zeros(1)])
    for sign, dtype in itertools.product((1, -1), (torch.float32, torch.float64)):
        a = (sign * bias).to(dtype)
        size = len(a)
        zeros, none = torch.zeros(3 * size, size, dtype=dtype), torch.zeros(3 * size, dtype=dtype)
        bias_ih = none.clone()
        bias_ih[size : 2 * size] = -torch.inf  # z is 0, so that the output is n
        bias_ih[2 * size :] = a
        state = torch.zeros(1, 1, size, dtype=dtype)
        weights = [(zeros, zeros, bias_ih, none)]
        n, _ = native.forward(torch.zeros(1, 1, size, dtype=dtype), None, state, weights,
                              reset="after", gate="sigmoid")  # fmt: skip
        torch.testing.assert_close(n[0, 0], torch.tanh(a), rtol=4 * torch.finfo(dtype).eps, atol=0)
