"""The fused linear layer and cross-entropy against torch's.

N rows, H hidden size, V vocabulary size.
"""

import pytest
import torch
import torch.nn.functional as F

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
