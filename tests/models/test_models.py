"""GRUEncode and GRUResize: parameters, loss, state, and no one-hot matrix.

T time steps, B rows, V vocabulary size, H hidden size, L layers.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from charrnn import GRUEncode, GRUResize, InputError

T, B, H = 7, 3, 5
MODELS = (GRUEncode, GRUResize)
models = pytest.mark.parametrize("kind", MODELS, ids=lambda k: k.__name__)
layers = pytest.mark.parametrize("L", (1, 3), ids=lambda v: f"L{v}")
# Fewer characters than a window has inputs, and more.
vocabularies = pytest.mark.parametrize("V", (11, 40), ids=lambda v: f"V{v}")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def window(V, *size):
    return torch.randint(0, V, size or (T, B)), torch.randint(0, V, size or (T, B))


@models
@layers
def test_parameters(kind, L):
    V = 11
    expected = {"embed.weight": (V, H), "embed.bias": (H,)} if kind is GRUEncode else {}
    for layer in range(L):
        inputs = V if kind is GRUResize and layer == 0 else H
        expected |= {
            f"gru.weight_ih_l{layer}": (3 * H, inputs),
            f"gru.weight_hh_l{layer}": (3 * H, H),
            f"gru.bias_ih_l{layer}": (3 * H,),
            f"gru.bias_hh_l{layer}": (3 * H,),
        }
    expected |= {"decoder.weight": (V, H), "decoder.bias": (V,)}
    found = {n: tuple(p.shape) for n, p in kind(V, H, L).named_parameters()}
    assert found == expected and list(found) == list(expected)


@models
def test_weights_start_uniform_and_biases_zero(kind):
    V, H = 90, 60
    for name, p in kind(V, H, 2).named_parameters():
        if p.dim() == 1:
            assert not p.any(), name
            continue
        # The fan-in is the vocabulary size where a character selects a slice.
        fan_in = V if name in ("embed.weight", "gru.weight_ih_l0") and p.shape != (3 * H, H) else H
        bound = 1 / math.sqrt(fan_in)
        assert 0.95 * bound < p.max() <= bound and -bound <= p.min() < -0.95 * bound, name
        assert p.var().item() == pytest.approx(bound**2 / 3, rel=0.1), name


def test_defaults_of_the_2016_program():
    gru = GRUEncode(11).gru
    assert (gru.hidden_size, gru.num_layers, gru.dropout) == (128, 2, 0.0)
    assert (gru.reset, gru.gate, gru.backend) == ("after", "sigmoid", "auto")


@models
@layers
@vocabularies
def test_loss_is_the_mean_cross_entropy_of_the_logits(kind, L, V):
    model = kind(V, H, L).double()
    inputs, targets = window(V)
    state = torch.randn(L, B, H).double()
    logits, after = model(inputs, state)
    assert logits.shape == (T, B, V) and after.shape == (L, B, H)
    nats = -logits.detach().softmax(-1).log()
    nats = torch.tensor([[nats[t, b, targets[t, b]] for b in range(B)] for t in range(T)])
    loss, loss_state = model.loss(inputs, targets, state)
    each, each_state = model.nll(inputs, targets, state)
    torch.testing.assert_close(loss.item(), nats.double().mean().item(), rtol=1e-6, atol=0)
    torch.testing.assert_close(each, nats.double(), rtol=1e-6, atol=1e-6)
    assert loss_state.equal(after) and each_state.equal(after)


@models
@vocabularies
def test_padding_is_ignored(kind, V):
    model = kind(V, H, 1)
    inputs, targets = window(V)
    state = model.initial_state(B)
    each, _ = model.nll(inputs, targets, state)
    hidden = torch.rand(T, B) < 0.5
    padded, _ = model.nll(inputs, targets.masked_fill(hidden, -100), state)
    assert not padded[hidden].any() and padded[~hidden].equal(each[~hidden])


@vocabularies
def test_encode_is_a_tanh_layer_before_the_gru(V):
    """With a row per character of the vocabulary or per input, whichever is less."""
    model = GRUEncode(V, H, 2).double()
    torch.nn.init.normal_(model.embed.bias)
    inputs, _ = window(V)
    state = torch.randn(2, B, H).double()
    one_hot = F.one_hot(inputs, V).double()
    features = torch.tanh(one_hot @ model.embed.weight + model.embed.bias)
    output, after = model.gru(features, state)
    logits, found = model(inputs, state)
    expected = F.linear(output, model.decoder.weight, model.decoder.bias)
    parameters = list(model.parameters())
    for a, b in [
        (logits, expected),
        (found, after),
        *zip(
            torch.autograd.grad(logits.square().sum() + found.sum(), parameters),
            torch.autograd.grad(expected.square().sum() + after.sum(), parameters),
        ),
    ]:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    _, table = model.features(inputs)
    assert (table is not None) == (V < T * B)


@vocabularies
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_resize_takes_the_one_hot_vector(V, backend):
    model = GRUResize(V, H, 2, backend=backend).double()
    inputs, _ = window(V)
    state = torch.randn(2, B, H).double()
    output, after = model.gru(F.one_hot(inputs, V).double(), state)
    logits, found = model(inputs, state)
    torch.testing.assert_close(logits, model.decoder(output), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, after, rtol=1e-10, atol=1e-10)


@models
@layers
def test_initial_state(kind, L):
    for dtype in (torch.float32, torch.float64):
        state = kind(11, H, L).to(dtype).initial_state(B)
        assert state.shape == (L, B, H) and state.dtype == dtype and not state.any()


@models
def test_state_is_never_kept_inside(kind):
    model = kind(11, H, 2)
    inputs, _ = window(11)
    state = torch.randn(2, B, H)
    before = state.clone()
    first, _ = model(inputs, state)
    model(window(11)[0], torch.randn(2, B, H))
    assert model(inputs, state)[0].equal(first) and state.equal(before)


@models
def test_activations_are_the_outputs_of_every_layer(kind):
    model = kind(11, H, 3, dropout=0.5).eval()
    inputs, _ = window(11)
    every = model.activations(inputs, model.initial_state(B))
    assert every.shape == (3, T, B, H)
    torch.testing.assert_close(model.decoder(every[-1]), model(inputs, model.initial_state(B))[0])


@models
def test_dropout_before_the_output(kind):
    """A single layer has no dropout between layers, only before the output."""
    model = kind(11, H, 1, dropout=0.5)
    inputs, _ = window(11)
    state = model.initial_state(B)
    (first, after), (second, after_too) = model(inputs, state), model(inputs, state)
    assert not first.equal(second) and after.equal(after_too)
    model.eval()
    assert model(inputs, state)[0].equal(model(inputs, state)[0])


class Sizes(TorchDispatchMode):
    """Record the largest number of elements that each operation returns."""

    def __init__(self):
        super().__init__()
        self.sizes = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                # A view or an expansion takes no memory of its own.
                size = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.sizes[str(function)] = max(size, self.sizes.get(str(function), 0))
        return result


@models
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_vocabulary_of_10_000_needs_no_one_hot_matrix(kind, backend):
    V, T, B = 10_000, 50, 8
    model = kind(V, H, 2, backend=backend)
    inputs, _ = window(V, T, B)
    with Sizes() as seen:
        features, table = model.features(inputs)
        output, state = model.gru(features, model.initial_state(B), table)
        (output.sum() + state.sum()).backward()
    # At most a gradient as large as the parameter itself; one-hot inputs would have T B V.
    assert max(seen.sizes.values()) <= 3 * H * V < T * B * V, seen.sizes
    loss, _ = model.loss(inputs, inputs, model.initial_state(B))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(V), rel=0.1)


@pytest.mark.parametrize("bad", [{"vocab_size": 0}, {"hidden_size": 0}, {"num_layers": 0}], ids=str)
@models
def test_bad_sizes_are_named(kind, bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        kind(**{"vocab_size": 11} | bad)


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize])
@pytest.mark.parametrize(("budget", "layers"), [(700, 1), (5000, 3), (1_000_000, 2)])
def test_a_budget_of_parameters(kind, budget, layers):
    def count(model):
        return sum(p.numel() for p in model.parameters())

    torch.manual_seed(3)
    model = kind(11, num_layers=layers, parameters=budget)
    size = model.gru.hidden_size
    assert count(model) <= budget < count(kind(11, size + 1, layers))
    torch.manual_seed(3)  # the search draws no random numbers
    other = kind(11, size, layers)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))


def test_a_budget_below_the_smallest_model():
    with pytest.raises(InputError, match="parameters=30 must be at least 5"):
        GRUEncode(11, parameters=30)
