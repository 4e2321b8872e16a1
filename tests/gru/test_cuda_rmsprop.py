"""RMSProp, clipping and scaling in one launch against torch's, emulated and on a GPU."""

import copy
import functools

import torch

from charrnn.gru.cuda import many, rmsprop

make = functools.partial(torch.optim.RMSprop, lr=0.01, alpha=0.95)


def test_the_same_steps(device):
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(n, device=device)) for n in (1, 301, 70_000)]
    theirs = copy.deepcopy(ours)
    optimizers = make(ours), make(theirs)
    rate = torch.tensor(0.01, device=device)
    for i in range(4):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizers[1].step()
        if i == 0:
            assert not rmsprop.supports(optimizers[0])  # there is no state yet
            optimizers[0].step()
        else:
            assert rmsprop.supports(optimizers[0])
            rmsprop.step(optimizers[0], [rate])
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        states = (optimizer.state[p] for optimizer, p in zip(optimizers, (a, b)))
        for x, y in zip(*(state.values() for state in states)):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-7, check_device=False)


def test_clipping_within_the_step(device):
    """The same numbers as clipping first; afterwards gradients hold what was clipped."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(n, device=device)) for n in (3, 70, 5001)]
    ours[1] = torch.nn.Parameter(torch.randn(71, device=device)[1:])  # does not begin at 16 bytes
    theirs = copy.deepcopy(ours)
    optimizers, rate = (make(ours), make(theirs)), torch.tensor(0.01, device=device)
    for optimizer, parameters in zip(optimizers, (ours, theirs)):
        for p in parameters:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for a, b in zip(ours, theirs):
        a.grad = 9 * torch.randn_like(a)
        a.grad[1], a.grad[-1] = torch.nan, -torch.inf
        b.grad = a.grad.clone()
    rmsprop.step(optimizers[0], [rate], 5.0)
    many.clip([p.grad for p in theirs], 5.0)
    rmsprop.step(optimizers[1], [rate])
    for a, b in zip(ours, theirs):
        for x, y in ((a, b), (a.grad, b.grad)):
            assert torch.equal(x.nan_to_num(7), y.nan_to_num(7))
        assert a.grad[-1] == -5 and a.grad[1].isnan() and a.isnan().sum() == 1
        assert all(optimizers[i].state[p]["step"] == 2 for i, p in enumerate((a, b)))


def test_other_forms_are_left_to_torch(device):
    p = [torch.nn.Parameter(torch.ones(3, device=device))]
    for settings in ({"momentum": 0.9}, {"centered": True}, {"weight_decay": 0.1}):
        assert not rmsprop.supports(make(p, **settings))
    assert not rmsprop.supports(torch.optim.Adam(p))


def test_clipping_lets_nan_through(device):
    """More tensors than a launch takes."""
    torch.manual_seed(0)
    tensors = [torch.randn(n, device=device) * 9 for n in range(1, 30)]
    tensors[3][1], tensors[28][0] = torch.nan, -torch.inf
    expected = [t.clamp(-5, 5) for t in tensors]
    many.clip(tensors, 5.0)
    for a, b in zip(tensors, expected):
        assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def test_scaling_turns_and_keeps_the_rest(device):
    factor = torch.tensor([0.25], device=device)
    one, other = (torch.arange(n, dtype=torch.float32, device=device) for n in (6, 700))
    found = many.multiply_turned([one, one[2:], other], [2, 0, None], factor)
    assert found[0].tolist() == [0.5, 0.75, 1, 1.25, 0, 0.25]
    assert found[1].tolist() == [0.5, 0.75, 1, 1.25]
    assert found[2] is other and other[699] == 699 / 4 and one[5] == 5
    parts = torch.arange(50, dtype=torch.float32, device=device).view(5, 10)
    turned, sums = many.multiply_turned([one], [2], factor, [(parts[:, 3:], 4)])
    assert torch.equal(turned, found[0])
    assert torch.equal(sums, parts[:, 3:].sum(0).roll(-4) / 4)
    whole = torch.arange(4096, dtype=torch.float32, device=device)
    for part, turn in ((whole, 1024), (whole[4:4004], 1000), (whole[1:4001], 1000)):
        (turned,) = many.multiply_turned([part], [turn], factor)
        assert torch.equal(turned, part.roll(-turn) / 4)


def test_to_halves(device):
    """Matrices of even sizes, some transposed too, not all contiguous."""
    torch.manual_seed(0)
    shapes = [(2, 2), (34, 30), (6, 100), (192, 64), (64, 8)]
    matrices = [torch.randn(shape, device=device) for shape in shapes]
    matrices[1] = matrices[1].t()
    matrices[2][0, 0], matrices[2][1, 1] = 1e6, torch.nan
    turned = [True, False, True, True, False]
    halves, others = many.to_halves(matrices, turned)
    for matrix, half, other, turn in zip(matrices, halves, others, turned):
        assert half.equal(matrix.half()) or half.isnan().sum() == 1
        assert (other is None) is not turn
        if turn:
            assert other.is_contiguous() and torch.equal(other.nan_to_num(), half.t().nan_to_num())
