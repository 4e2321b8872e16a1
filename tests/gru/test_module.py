"""GRU: the torch backend against the reference, the reference against NumPy and gradcheck.

T time steps, B rows, H hidden size, I input size, V vocabulary size, L layers.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from charrnn import GRU, InputError
from charrnn.gru import BACKENDS, GATES, RESETS

T, B, H, V = 7, 3, 5, 11
LAYERS = (1, 3)
KINDS = ("features", "table", "one_hot")
layers = pytest.mark.parametrize("L", LAYERS, ids=lambda v: f"L{v}")
kinds = pytest.mark.parametrize("kind", KINDS)
resets = pytest.mark.parametrize("reset", RESETS)
gates = pytest.mark.parametrize("gate", GATES)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(L, kind, backend="reference", **settings):
    """A GRU in float64 with random weights and biases."""
    gru = GRU(V if kind == "one_hot" else H, H, L, backend=backend, **settings).double()
    for p in gru.parameters():
        torch.nn.init.uniform_(p, -1.5, 1.5)
    return gru


def make_inputs(L, kind):
    """Random inputs, table and state."""
    indices = torch.randint(0, V, (T, B))
    features = torch.randn(T, B, H, dtype=torch.float64, requires_grad=True)
    table = torch.randn(V, H, dtype=torch.float64, requires_grad=True)
    state = torch.randn(L, B, H, dtype=torch.float64, requires_grad=True)
    if kind == "features":
        return features, None, state
    return indices, table if kind == "table" else None, state


def gradients(gru, arguments, outputs, final, through):
    """Gradients of all parameters and arguments, through the outputs, the final state or both."""
    weights = torch.Generator().manual_seed(1)
    loss = 0.0
    for tensor, name in ((outputs, "outputs"), (final, "final")):
        weight = torch.randn(tensor.shape, generator=weights, dtype=tensor.dtype)
        if through in (name, "both"):
            loss = loss + (weight * tensor).sum()
    leaves = [*gru.parameters(), *(a for a in arguments if a is not None and a.requires_grad)]
    return torch.autograd.grad(loss, leaves)


@layers
@kinds
@pytest.mark.parametrize("through", ["outputs", "final", "both"])
def test_torch_equals_reference(L, kind, through):
    reference, fast = make(L, kind), make(L, kind, "torch")
    fast.load_state_dict(reference.state_dict())
    inputs, table, state = make_inputs(L, kind)
    results = []
    for gru in (reference, fast):
        outputs, final = gru(inputs, state, table)
        found = gradients(gru, (inputs, table, state), outputs, final, through)
        results.append((outputs, final, *found))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def by_the_equations(gru, x, h):
    """The equations in NumPy, one unit, row, layer and step at a time; x (T, B, I)."""
    x, h = x.copy(), h.copy()
    if gru.gate == "sigmoid":
        g = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    else:
        g = lambda a: min(max(0.2 * a + 0.5, 0.0), 1.0)  # noqa: E731
    for layer in range(gru.num_layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        W_i, W_h, b_i, b_h = (getattr(gru, f"{n}_l{layer}").detach().numpy() for n in names)
        outputs = np.zeros((len(x), x.shape[1], H))
        for t in range(len(x)):
            for row in range(x.shape[1]):
                before, now = h[layer, row].copy(), x[t, row]
                r, z = np.zeros(H), np.zeros(H)
                for k in range(H):
                    r[k] = g(W_i[k] @ now + b_i[k] + W_h[k] @ before + b_h[k])
                    m = H + k
                    z[k] = g(W_i[m] @ now + b_i[m] + W_h[m] @ before + b_h[m])
                for k in range(H):
                    m = 2 * H + k
                    if gru.reset == "after":
                        n = np.tanh(W_i[m] @ now + b_i[m] + r[k] * (W_h[m] @ before + b_h[m]))
                    else:
                        n = np.tanh(W_i[m] @ now + b_i[m] + W_h[m] @ (r * before) + b_h[m])
                    h[layer, row, k] = (1 - z[k]) * n + z[k] * before[k]
                outputs[t, row] = h[layer, row]
        x = outputs
    return x, h


@layers
@kinds
@resets
@gates
def test_reference_follows_the_equations(L, kind, reset, gate):
    gru = make(L, kind, reset=reset, gate=gate)
    inputs, table, state = make_inputs(L, kind)
    x = {
        "features": lambda: inputs.detach().numpy(),
        "table": lambda: table.detach().numpy()[inputs.numpy()],
        "one_hot": lambda: np.eye(V)[inputs.numpy()],
    }[kind]()
    outputs, final = gru(inputs, state, table)
    expected_outputs, expected_final = by_the_equations(gru, x, state.detach().numpy())
    np.testing.assert_allclose(outputs.detach().numpy(), expected_outputs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(final.detach().numpy(), expected_final, rtol=0, atol=1e-12)


def test_hard_gates_are_flat_outside():
    """The inputs of these tests reach both flat parts of the hard gates."""
    gru = make(1, "features", gate="hard_sigmoid")
    inputs, _, state = make_inputs(1, "features")
    a = 0.2 * (F.linear(inputs[0], gru.weight_ih_l0) + F.linear(state[0], gru.weight_hh_l0)) + 0.5
    assert (a[:, : 2 * H] < 0).any() and (a[:, : 2 * H] > 1).any()


@pytest.mark.parametrize("kind", ["features", "table", "one_hot"])
@resets
@gates
def test_reference_gradients(kind, reset, gate):
    gru = make(2, kind, reset=reset, gate=gate)
    inputs, table, state = make_inputs(2, kind)
    inputs = inputs[:3, :2].detach().requires_grad_(kind == "features")
    state = state[:, :2].detach().requires_grad_()
    names, values = zip(*gru.named_parameters())

    def run(state, table, inputs, *parameters):
        arguments = (inputs, state, table)
        return torch.func.functional_call(gru, dict(zip(names, parameters)), arguments)

    values = [v.detach().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(run, (state, table, inputs, *values), fast_mode=True)


@layers
@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_two_windows_are_one(L, backend, cut):
    gru = make(L, "features", backend)
    inputs, _, state = make_inputs(L, "features")
    outputs, final = gru(inputs, state)
    first, between = gru(inputs[:cut], state)
    second, end = gru(inputs[cut:], between)
    torch.testing.assert_close(torch.cat([first, second]), outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(end, final, rtol=1e-12, atol=1e-12)
    assert final[-1].equal(outputs[-1])


@layers
@kinds
@resets
def test_every_layer(L, kind, reset):
    """layers() equals the outputs and final states of forward, without dropout."""
    gru = make(L, kind, "auto", reset=reset, dropout=0.5).eval()
    inputs, table, state = make_inputs(L, kind)
    every = gru.layers(inputs, state, table)
    assert every.shape == (L, T, B, H)
    outputs, final = gru(inputs, state, table)
    torch.testing.assert_close(every[-1], outputs)
    torch.testing.assert_close(every[:, -1], final)


@layers
def test_parameters_are_those_of_torch(L):
    ours, theirs = GRU(V, H, L), torch.nn.GRU(V, H, L)
    shapes = [(n, p.shape) for n, p in ours.named_parameters()]
    assert shapes == [(n, p.shape) for n, p in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x, h = torch.randn(T, B, V), torch.randn(L, B, H)
    for a, b in zip(ours(x, h), theirs(x, h)):
        torch.testing.assert_close(a, b)
    torch.nn.init.normal_(ours.weight_hh_l0)
    theirs.load_state_dict(ours.state_dict())
    for a, b in zip(ours(x, h), theirs(x, h)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_dropout_is_between_layers(backend):
    gru = make(2, "features", backend, dropout=0.5)
    plain = make(2, "features", backend)
    plain.load_state_dict(gru.state_dict())
    inputs, _, state = make_inputs(2, "features")
    outputs, final = gru(inputs, state)
    expected, expected_final = plain(inputs, state)
    # Layer 0 has no dropout at any step; layer 1 has, from the first step on.
    assert final[0].equal(expected_final[0])
    assert not outputs[0].equal(expected[0])
    assert not gru(inputs, state)[0].equal(outputs)  # drawn again
    gru.eval()
    assert gru(inputs, state)[0].equal(expected)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_dropout_is_not_along_time(backend):
    """If layer 1 ignores its inputs, dropout has no effect."""
    gru = make(2, "features", backend, dropout=0.5)
    torch.nn.init.zeros_(gru.weight_ih_l1)
    inputs, _, state = make_inputs(2, "features")
    assert gru(inputs, state)[0].equal(gru.eval()(inputs, state)[0])


def test_dropout_drops_its_share_and_scales_the_rest():
    """Layer 1 passes its inputs on: z = 0, n = tanh(x)."""
    gru = GRU(H, H, 2, dropout=0.25, backend="reference").double()
    inputs, state = torch.randn(200, B, H).double(), torch.zeros(2, B, H).double()
    with torch.no_grad():
        for name in ("weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
            getattr(gru, name).zero_()
        gru.bias_ih_l1[H : 2 * H] = -50
        gru.weight_ih_l1[2 * H :] = torch.eye(H)
        received, below = gru(inputs, state)[0].atanh(), gru.layers(inputs, state)[0]
    kept = received.abs() > 1e-12
    torch.testing.assert_close(received[kept], (below / 0.75)[kept])
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.03)


@resets
@gates
def test_auto_selects_the_fastest_supported(reset, gate):
    can = (reset, gate) == ("after", "sigmoid")
    gru = GRU(H, H, reset=reset, gate=gate)
    assert gru.choose_backend(torch.device("cpu")) == "native"
    assert gru.choose_backend(torch.device("meta")) == ("torch" if can else "reference")
    if not can:
        with pytest.raises(InputError, match=r"backend=torch: .*reset=after"):
            GRU(H, H, reset=reset, gate=gate, backend="torch")


@pytest.mark.parametrize(
    "bad",
    [
        {"hidden_size": 0}, {"num_layers": 0}, {"dropout": 1.0}, {"dropout": -0.1},
        {"reset": "never"}, {"gate": "relu"}, {"backend": "cudnn"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_named(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        GRU(**{"input_size": H, "hidden_size": H} | bad)


def test_every_backend_has_a_module():
    for backend in BACKENDS:
        assert GRU(H, H, backend=backend).choose_backend(torch.device("cpu")) in BACKENDS[1:]
