"""The loss of CUDA kernels at odd sizes: on a CPU through the emulator, and on a GPU if there."""

import pytest
import torch
import torch.nn.functional as F

from charrnn.gru.cuda import loss, nvrtc, rows

pytestmark = pytest.mark.usefixtures("cuda_full_of_nan")

NEAR = {None: 2e-6, torch.float16: 4e-3, torch.bfloat16: 1e-2}
"""How far, relatively, gradients are from float64's, by the operands' type."""


def both(device, count, hidden, vocab, low, targets, factor=1.0):
    """The loss, and gradients of it times a factor, by the kernels and in float64."""
    torch.manual_seed(vocab)
    given = [torch.randn(shape) for shape in ((count, hidden), (vocab, hidden), (vocab,))]
    for move in ({"device": device}, {"dtype": torch.float64}):
        leaves = [tensor.to(**move).requires_grad_() for tensor in given]
        if move == {"device": device}:
            nats = loss.LinearCrossEntropy.apply(*leaves, targets.to(device), low, True)
        else:
            nats = F.cross_entropy(F.linear(*leaves), targets)
        yield [t.double().cpu() for t in (nats, *torch.autograd.grad(nats * factor, leaves))]


@pytest.mark.parametrize("low", NEAR)
@pytest.mark.parametrize("size", [(1, 3, 1), (77, 9, 5), (300, 7, 97), (41, 5, 200), (9, 2, 5000)])
def test_any_size(device, size, low, monkeypatch):
    """And more rows than thread blocks have at a time."""
    monkeypatch.setattr(rows, "PARTS", 3)
    count, hidden, vocab = size
    targets = torch.randint(vocab, (count,))
    targets[2::7] = -100
    found, expected = both(device, count, hidden, vocab, low, targets, 1024.0)
    for a, b in zip(found, expected):
        assert a.shape == b.shape
        # With one character every gradient is zero.
        assert (a - b).norm() <= NEAR[low] * max(b.norm(), 1.0 if vocab == 1 else 0)


@pytest.mark.parametrize("low", NEAR)
@pytest.mark.parametrize("vocab", [5, 200, 600])
def test_targets_that_do_not_count(device, vocab, low):
    """None does: not a number. One is wrong: nor is the loss, but the other rows are as before."""
    nats, *grads = next(both(device, 11, 3, vocab, low, torch.full((11,), -100)))
    assert nats.isnan() and all(g.isnan().all() for g in grads)
    for wrong in (vocab, -1, 1 << 40):
        targets = torch.arange(11) % vocab
        right = both(device, 11, 3, vocab, low, targets)
        expected, targets[4] = next(right)[1], wrong
        nats, d_inputs, *rest = next(both(device, 11, 3, vocab, low, targets))
        others = torch.arange(11) != 4
        assert nats.isnan() and d_inputs[4].isnan().all() and all(g.isnan().all() for g in rest)
        assert torch.equal(d_inputs[others], expected[others])
        with pytest.raises(IndexError, match=f"none of the vocabulary of {vocab}"):
            nvrtc.raise_failure()


@pytest.mark.parametrize("low", NEAR)
@pytest.mark.parametrize("factor", [torch.inf, torch.nan])
def test_a_scaled_loss_that_is_not_finite(device, low, factor):
    found, _ = both(device, 9, 3, 5, low, torch.arange(9) % 5, factor)
    assert not any(g.isfinite().any() for g in found[1:])
