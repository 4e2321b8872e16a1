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


SCALES = torch.linspace(-1, 1, V)


class Adapter(nn.Linear):
    def forward(self, x):
        return super().forward(x) * SCALES


class Rescaled(GRUEncode):
    def forward(self, inputs, state):
        logits, state = super().forward(inputs, state)
        return logits * SCALES, state


def replaced(model, layer):
    layer.weight = model.decoder.weight
    model.decoder = layer


def with_own_forward(layer):
    whole = layer.forward
    layer.forward = lambda x: whole(x) * SCALES


CHANGES = {
    "hook": lambda m: m.decoder.register_forward_hook(lambda _, i, o: o * SCALES),
    "hook of the model": lambda m: m.register_forward_hook(lambda _, i, o: (o[0] * SCALES, o[1])),
    "hook before": lambda m: m.decoder.register_forward_pre_hook(lambda _, i: (i[0] / 3,)),
    "own forward": lambda m: with_own_forward(m.decoder),
    "adapter": lambda m: replaced(m, Adapter(4, V)),
    "no bias": lambda m: replaced(m, nn.Linear(4, V, bias=False)),
    "subclass": lambda m: setattr(m, "__class__", Rescaled),
    "all modules": lambda m: nn.modules.module.register_module_forward_hook(
        lambda part, i, o: o * SCALES if isinstance(part, nn.Linear) else None
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_way_computes_what_forward_does(model, change):
    """Training, validation and sampling, though the kernels know nothing of the change."""
    from charrnn.gru.generate import supports_model

    torch.manual_seed(2)
    inputs, targets = torch.randint(V, (2, T, B))
    state, before = model.initial_state(B), model(inputs, model.initial_state(B))[0]
    handle = CHANGES[change](model)
    try:
        logits, after = model(inputs, state)
        assert change == "no bias" or not torch.allclose(logits, before)
        expected = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        assert torch.allclose(contract.loss(model, inputs, targets, state)[0], expected)
        with torch.no_grad():
            nats, last = contract.nll(model, inputs, targets, state)
            assert torch.allclose(nats.mean(), expected) and torch.allclose(last, after)
        assert not supports_model(model)
    finally:
        if handle is not None:
            handle.remove()
