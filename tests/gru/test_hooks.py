"""What listens to the calls of modules, or replaces them: by torch's public ways."""

import pytest
import torch
from torch import nn
from torch.nn.modules import module
from torch.nn.utils import parametrizations, parametrize, prune

from charrnn import GRUEncode
from charrnn.gru.hooks import has_hooks, is_plain_linear


def heard(*_):
    return None


def own_forward(linear):
    linear.forward = linear.forward


WAYS = {
    "forward": lambda linear: linear.register_forward_hook(heard),
    "with keywords": lambda linear: linear.register_forward_hook(heard, with_kwargs=True),
    "always": lambda linear: linear.register_forward_hook(heard, always_call=True),
    "before": lambda linear: linear.register_forward_pre_hook(heard),
    "backward": lambda linear: linear.register_full_backward_hook(heard),
    "before backward": lambda linear: linear.register_full_backward_pre_hook(heard),
    "all forward": lambda linear: module.register_module_forward_hook(heard),
    "all before": lambda linear: module.register_module_forward_pre_hook(heard),
    "all backward": lambda linear: module.register_module_full_backward_hook(heard),
    "pruned": lambda linear: prune.l1_unstructured(linear, "weight", 0.5),
    "own forward": own_forward,
}


@pytest.mark.parametrize("way", WAYS)
def test_hooks(way):
    linear = nn.Linear(2, 3)
    assert is_plain_linear(linear) and not has_hooks(nn.Sequential(linear))
    handle = WAYS[way](linear)
    assert has_hooks(nn.Sequential(linear)) and not is_plain_linear(linear)
    if isinstance(handle, torch.utils.hooks.RemovableHandle):
        handle.remove()
        assert not has_hooks(nn.Sequential(linear))


def test_linear_layers_that_compute_something_else():
    normed, doubled = parametrizations.weight_norm(nn.Linear(2, 3)), nn.Linear(2, 3)
    parametrize.register_parametrization(doubled, "weight", nn.Identity())
    adapted = type("Adapter", (nn.Linear,), {})(2, 3)
    for layer in (normed, doubled, adapted, nn.Linear(2, 3, bias=False), nn.Identity()):
        assert not is_plain_linear(layer)


@pytest.mark.parametrize("name", ["loss", "nll"])
def test_a_method_that_is_called_directly_hears_hooks_too(name):
    """Without :mod:`charrnn.models.contract`, which takes ``forward`` where a hook listens."""
    model = GRUEncode(5, 4, 1)
    model.decoder.register_forward_hook(lambda layer, inputs, output: output * 2)
    inputs, targets = torch.arange(4)[:, None], torch.arange(1, 5)[:, None]
    with torch.no_grad():
        found, _ = getattr(model, name)(inputs, targets, model.initial_state(1))
        logits, _ = model(inputs, model.initial_state(1))
    expected = nn.functional.cross_entropy(logits[:, 0], targets[:, 0])
    torch.testing.assert_close(found.mean(), expected)
