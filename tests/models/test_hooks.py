"""Hooks hear every call, also where a fused loss would pass their module by."""

import pytest
import torch
from torch import nn

from charrnn import GRUEncode
from charrnn.models import contract

T, B, V = 5, 3, 7


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GRUEncode(V, 4, 2, backend="auto")


def loss(model):
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randint(V, (2, T, B), generator=generator)
    return contract.loss(model, inputs, targets, model.initial_state(B))[0]


@pytest.mark.parametrize("name", ["", "gru", "decoder", "dropout"])
def test_a_hook_hears_the_loss(model, name):
    heard, expected = [], loss(model)
    module = model.get_submodule(name)
    handle = module.register_forward_hook(lambda *_: heard.append(name))
    assert torch.allclose(loss(model), expected) and heard == [name]
    contract.advance(model, torch.zeros(T, B, dtype=torch.int64), model.initial_state(B))
    assert heard == [name] * 2
    handle.remove()
    assert torch.equal(loss(model), expected) and heard == [name] * 2


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_normed_decoder_trains(model, norm):
    before = loss(model)
    norm(model.decoder)
    assert torch.allclose(loss(model), before)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    assert loss(model) < before
