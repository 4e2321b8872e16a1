"""The fused step of an optimizer: bit for bit that of torch."""

import copy

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.optimizer import register_optimizer_step_post_hook

from charrnn.gru.optimizer import FusedStep, same_numbers, supports

SIZES = ((17, 130), (1,), (37,), (130, 131))
"""Whole vectors and parts of one, and more than one task of the kernel."""
CASES = {
    "rmsprop": (RMSprop, {"lr": 1e-3, "alpha": 0.95}),
    "rmsprop_momentum": (RMSprop, {"lr": 1e-2, "momentum": 0.8, "weight_decay": 0.1}),
    "sgd": (SGD, {"lr": 0.3}),
    "sgd_momentum": (SGD, {"lr": 0.3, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}),
    "sgd_nesterov": (SGD, {"lr": 0.3, "momentum": 0.9, "nesterov": True}),
    "adam": (Adam, {"lr": 1e-3}),
    "adam_low_beta": (Adam, {"lr": 1e-3, "betas": (0.4, 0.99), "weight_decay": 0.1}),
    "adamw": (AdamW, {"lr": 1e-3, "betas": (0.9, 0.99)}),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_torch(case, threads):
    """After many steps, of L2, clipping, and gradients of all magnitudes; the state too."""
    kind, options = CASES[case]
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(size, generator=generator).requires_grad_() for size in SIZES]
    for foreach in (True, False):
        theirs = kind(parameters, foreach=foreach, **options)
        if not supports(theirs):
            pytest.skip("kernels without fused multiply-add: torch's rounding is another")
        ours = copy.deepcopy(theirs)
        fused = FusedStep(ours)
        for number in range(30):
            scale = 10 ** torch.randn((), generator=generator)
            for p, q in zip(parameters, ours.param_groups[0]["params"], strict=True):
                p.grad = torch.randn(p.shape, generator=generator) * scale
                q.grad = p.grad.clone()
                if p.dim() > 1:
                    p.grad.add_(p.detach(), alpha=0.01)
            share = sum((p.grad.abs() > 2).sum() for p in parameters) / fused.size
            norm = torch.cat([p.grad.flatten() for p in parameters]).double().norm()
            torch.nn.utils.clip_grad_value_(parameters, 2)
            clipped = [p.grad.clone() for p in parameters]
            theirs.step()
            stats = fused(0.01, 2.0)
            copies = ours.param_groups[0]["params"]
            if stats is None:  # the state is made by torch's own step
                assert number == 0
                for q, grad in zip(copies, clipped, strict=True):
                    q.grad = grad
                ours.step()
                continue
            assert all(map(torch.equal, [q.grad for q in copies], clipped))
            assert stats.norm == pytest.approx(norm.item(), rel=1e-6)
            assert stats.clipped == pytest.approx(share.item(), abs=1e-6)
        assert same_numbers(theirs, ours)


def test_clipping_by_norm():
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(size, generator=generator).requires_grad_() for size in SIZES]
    theirs = SGD(parameters, lr=1.0)
    ours = copy.deepcopy(theirs)
    fused = FusedStep(ours)
    for bound in (1.0, 1e9):
        for p, q in zip(parameters, ours.param_groups[0]["params"]):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        torch.nn.utils.clip_grad_norm_(parameters, bound)
        theirs.step()
        fused(0.0, bound, "norm")
        for p, q in zip(parameters, ours.param_groups[0]["params"]):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_gradients_that_are_not_finite_reach_the_weights():
    for algorithm in ("value", "norm"):
        parameter = torch.ones(3, requires_grad=True)
        parameter.grad = torch.tensor([1.0, torch.nan, 1.0])
        FusedStep(SGD([parameter], lr=1.0))(0.0, 5.0, algorithm)
        assert parameter.isnan().any()


def test_a_loaded_state_is_used():
    """State and settings that replaced those of earlier steps, as after a rollback."""
    parameter = torch.ones(40, requires_grad=True)
    optimizer = RMSprop([parameter])
    parameter.grad = torch.ones(40)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    fused = FusedStep(optimizer)
    fused()
    expected = 0.99 * saved["state"][0]["square_avg"] + 0.01
    optimizer.load_state_dict(saved)
    optimizer.param_groups[0]["lr"] = 0.0
    before = parameter.detach().clone()
    fused()
    assert torch.equal(parameter, before)
    assert optimizer.state[parameter]["step"] == 2
    torch.testing.assert_close(optimizer.state[parameter]["square_avg"], expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: Adam(p, amsgrad=True),
        lambda p: RMSprop(p, centered=True),
        lambda p: SGD(p, lr=torch.tensor(0.1)),
        lambda p: SGD([{"params": p[:1]}, {"params": p[1:]}]),
        lambda p: torch.optim.NAdam(p),
        lambda p: type("Own", (SGD,), {})(p),
    ],
    ids=["amsgrad", "centered", "tensor_lr", "groups", "nadam", "subclass"],
)
def test_what_is_left_to_torch(make):
    assert not supports(
        make([torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)])
    )
    assert not supports(SGD([torch.ones(3, dtype=torch.float64, requires_grad=True)]))


def test_without_a_gradient_nothing_is_done():
    parameters = [torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)]
    parameters[0].grad = torch.ones(3)
    assert FusedStep(SGD(parameters, lr=1.0))() is None
    assert torch.equal(parameters[0], torch.ones(3))


@pytest.mark.parametrize("listen", ["own_hook", "hook_of_all", "group"])
def test_who_comes_later_is_heard(listen):
    """As a callback may when the training starts; the optimizer's own step is left to do it."""
    parameter = torch.ones(3, requires_grad=True)
    optimizer = SGD([parameter], lr=1.0)
    fused = FusedStep(optimizer)
    parameter.grad = torch.ones(3)
    assert fused() is not None
    before = parameter.detach().clone()
    if listen == "group":
        optimizer.add_param_group({"params": [torch.ones(2, requires_grad=True)]})
    elif listen == "own_hook":
        optimizer.register_step_post_hook(lambda *a: None)
    else:
        handle = register_optimizer_step_post_hook(lambda *a: None)
    try:
        assert fused() is None
    finally:
        if listen == "hook_of_all":
            handle.remove()
    assert torch.equal(parameter, before)
