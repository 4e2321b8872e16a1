"""The fused linear layer and cross-entropy against torch's.

N rows, H hidden size, V vocabulary size.
"""

import pytest
import torch
import torch.nn.functional as F

from charrnn.gru import GATES, RESETS
from charrnn.gru.loss import linear_cross_entropy, linear_nats
from charrnn.models import GRUEncode, GRUResize

pytestmark = pytest.mark.usefixtures("full_of_nan")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


def assert_near(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a.detach() - b.detach()).norm() <= tolerance * b.detach().norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("size", [1, 2, 31, 300, 2100])
@pytest.mark.parametrize("count", [1, 29, 300])  # of a task, and of several
def test_loss_is_cross_entropy(count, size, dtype, threads):
    torch.manual_seed(size)
    inputs = torch.randn(count, 5, dtype=dtype, requires_grad=True)
    weight = torch.randn(size, 5, dtype=dtype, requires_grad=True)
    bias = torch.randn(size, dtype=dtype, requires_grad=True)
    targets = torch.randint(size, (count,))
    targets[3:300:7] = -100
    leaves = (inputs, weight, bias)
    expected = F.cross_entropy(F.linear(*leaves), targets)
    found = linear_cross_entropy(*leaves, targets)
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(*leaves, targets), found)
        nats = F.cross_entropy(F.linear(*leaves), targets, reduction="none")
        assert_near([linear_nats(*leaves, targets)], [nats], TOLERANCE[dtype])
    for factor in (1, 3):
        a, b = (torch.autograd.grad(x * factor, leaves, retain_graph=True)
                for x in (found, expected))  # fmt: skip
        for x, y in zip((found, *a), (expected, *b)):
            assert (x - y).norm() <= TOLERANCE[dtype] * max(1, y.norm())


def test_loss_with_frozen_parameters():
    inputs, weight = torch.randn(6, 4), torch.randn(5, 4)
    bias = torch.randn(5, requires_grad=True)
    targets = torch.randint(5, (6,))
    found, expected = (
        torch.autograd.grad(f, [bias])
        for f in (
            linear_cross_entropy(inputs, weight, bias, targets),
            F.cross_entropy(F.linear(inputs, weight, bias), targets),
        )
    )
    assert_near(found, expected, 1e-5)


def test_loss_of_a_target_out_of_range():
    with pytest.raises(IndexError, match="vocabulary"):
        linear_cross_entropy(torch.ones(1, 2), torch.ones(3, 2), torch.ones(3), torch.tensor([3]))


@pytest.mark.parametrize("model", [GRUEncode, GRUResize])
def test_loss_of_a_model(model):
    torch.manual_seed(0)
    made = model(11, 13, 2).double()
    inputs, targets = torch.randint(11, (2, 8, 3))
    found = []
    for backend in ("native", "reference"):
        made.gru.backend = backend
        mean, state = made.loss(inputs, targets, made.initial_state(3))
        nats, _ = made.nll(inputs, targets, made.initial_state(3))
        assert_near([nats.mean()], [mean], 1e-10)
        found.append([mean, state, *torch.autograd.grad(mean, list(made.parameters()))])
    assert_near(*found, 1e-10)


def gradients(model, inputs, targets, state, factor, between=None):
    """The loss, the final state, and the gradients of a sum of both."""
    mean, final = model.loss(inputs, targets, state)
    if between is not None:
        torch.set_num_threads(between)
    objective = factor * mean + (final * torch.arange(final.numel()).view_as(final).cos()).sum()
    return [mean, final, *torch.autograd.grad(objective, [state, *model.parameters()])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", [GRUEncode, GRUResize])
def test_layers_and_loss_at_once(kind, reset, gate, dtype, threads):
    """Also of the final state, and of rows that do not divide by the threads."""
    for hidden, layers, steps, rows in [
        (5, 1, 1, 1),
        (17, 2, 40, 7),
        (33, 3, 19, 5),
        (48, 2, 3, 0),
    ]:
        torch.manual_seed(hidden)
        model = kind(11, hidden, layers, reset=reset, gate=gate).to(dtype)
        inputs, targets = torch.randint(11, (2, rows, steps)).transpose(1, 2)  # not contiguous
        targets[1:300:7] = -100
        state = torch.randn(layers, rows, hidden, dtype=dtype, requires_grad=True)
        assert model.is_one_step(inputs, state.device)
        found = gradients(model, inputs, targets, state, 3.0)
        model.gru.backend = "reference"
        assert not model.gru.fuses_loss(state.device)
        expected = gradients(model, inputs, targets, state, 3.0)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            assert (a - b).norm() <= TOLERANCE[dtype] * b.norm() or not rows


def test_threads_change_between_the_passes(threads):
    torch.manual_seed(0)
    model = GRUEncode(11, 48, 2)
    inputs, targets = torch.randint(11, (2, 60, 7))
    case = inputs, targets, torch.randn(2, 7, 48, requires_grad=True), 1.0
    before = torch.get_num_threads()
    try:
        found = gradients(model, *case, between=before % 4 + 1)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, found, gradients(model, *case)))


def test_what_comes_between_layers_and_loss_is_called():
    model, heard = GRUEncode(11, 6, 2), []
    inputs, state = torch.randint(11, (4, 3)), model.initial_state(3)
    for module in (model.gru, model.dropout, model.decoder):
        assert model.is_one_step(inputs, state.device)
        handle = module.register_forward_hook(lambda *call: heard.append(call[0]))
        model.loss(inputs, inputs, state)
        assert heard.pop() is module and not heard
        handle.remove()
    with torch.no_grad():
        assert not model.is_one_step(inputs, state.device)
    model.dropout.p = 0.5
    assert not model.is_one_step(inputs, state.device)
    assert model.eval().is_one_step(inputs, state.device)


@pytest.mark.parametrize("frozen", ["gru", "decoder", "embed"])
def test_loss_of_a_model_with_frozen_parts(frozen):
    torch.manual_seed(0)
    model = GRUEncode(5, 6, 2).double()
    window = (*torch.randint(5, (2, 4, 3)), model.initial_state(3))
    model.loss(*window)[0].backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.get_submodule(frozen).requires_grad_(False)
    assert model.is_one_step(window[0], window[2].device) == (frozen == "embed")
    model.loss(*window)[0].backward()
    for name, parameter in model.named_parameters():
        if name.startswith(frozen):
            assert parameter.grad is None
        else:
            assert_near([parameter.grad], [expected[name]], 1e-10)


class Doubled(GRUEncode):
    def features(self, inputs):
        inputs, table = super().features(inputs)
        return inputs, 2 * table


class Halved(GRUEncode):
    def outputs(self, inputs, state):
        outputs, state = super().outputs(inputs, state)
        return outputs / 2, state


@pytest.mark.parametrize("kind", [GRUEncode, Doubled, Halved])
@pytest.mark.parametrize("name", [None, "features", "outputs"])
def test_what_a_model_replaces_is_in_its_loss(kind, name):
    torch.manual_seed(0)
    model = kind(5, 6, 2).double()
    inputs, targets = torch.randint(5, (2, 4, 3))
    if name is not None:  # also of the object
        replaced, heard = getattr(model, name), []
        setattr(model, name, lambda *given: heard.append(name) or replaced(*given))
    losses = [model.loss(inputs, targets, model.initial_state(3))[0]]
    logits, _ = model(inputs, model.initial_state(3))
    losses.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    parameters = list(model.parameters())
    found = [[loss, *torch.autograd.grad(loss, parameters)] for loss in losses]
    assert_near(*found, 1e-10)
    assert name is None or heard == [name] * 2


def test_a_window_loss_has_one_backward_pass():
    model = GRUEncode(11, 6, 2)
    mean, _ = model.loss(*torch.randint(11, (2, 4, 3)), model.initial_state(3))
    mean.backward()
    with pytest.raises(RuntimeError, match="second time"):
        mean.backward()


def test_a_window_loss_of_an_index_out_of_range():
    model, inputs = GRUEncode(11, 6, 2), torch.zeros(4, 3, dtype=torch.long)
    wrong = inputs.clone()
    wrong[2, 1] = 11
    for window in ((wrong, inputs), (inputs, wrong), (inputs, wrong - 12)):
        with pytest.raises(IndexError, match="vocabulary"):
            model.loss(*window, model.initial_state(3))
