"""Activations and gates against the equations, one character at a time."""

import numpy as np
import pytest
import torch
from small_models import following, small_model
from small_models import random_model as make

from charrnn import GRUEncode, GRUResize
from charrnn.data.charset import BOUNDARY
from charrnn.gru.reference import hard_sigmoid


def plain_activations(model, text):
    """States and gates, three arrays (L, H, T), by the equations, one character at a time."""
    net, gru = model.model, model.model.gru
    squash = torch.sigmoid if gru.gate == "sigmoid" else hard_sigmoid
    h = net.initial_state(1)[:, 0]
    found = []
    for index in model.charset.encode(text).tolist():
        if index == net.boundary:
            h = h * 0
        if isinstance(net, GRUEncode):
            x = torch.tanh(net.embed.weight[index] + net.embed.bias)
        else:
            x = torch.nn.functional.one_hot(torch.tensor(index), len(model.charset)).to(h)
        step = []
        for layer, (w_ih, w_hh, b_ih, b_hh) in enumerate(gru.all_weights):
            x_r, x_z, x_n = (w_ih @ x + b_ih).chunk(3)
            w_r, w_z, w_n = w_hh.chunk(3)
            b_r, b_z, b_n = b_hh.chunk(3)
            r = squash(x_r + w_r @ h[layer] + b_r)
            z = squash(x_z + w_z @ h[layer] + b_z)
            inner = w_n @ (r * h[layer]) + b_n if gru.reset == "before" else None
            inner = r * (w_n @ h[layer] + b_n) if inner is None else inner
            x = (1 - z) * torch.tanh(x_n + inner) + z * h[layer]
            step.append(torch.stack([x, r, z]))
        h = torch.stack([s[0] for s in step])
        found.append(torch.stack(step, 1))
    return torch.stack(found, -1).detach().numpy()


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_activations_and_gates_against_a_plain_loop(reset, gate, kind, unit):
    text = "añb a\n¿?"  # the last is not in the alphabet
    documents = unit == "char"
    text += BOUNDARY + "ab" if documents else ""
    model = make("abñ \n¿" if documents else map(chr, range(250)), unit, kind, 3, 5, documents,
                 reset=reset, gate=gate)  # fmt: skip
    model.model.double()
    expected = plain_activations(model, text)
    length = len(model.charset.preprocess(text))
    assert expected.shape == (3, 3, 5, length)
    found = [model.activations(text), *model.gates(text)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert [part.shape for part in model.gates("")] == [(3, 5, 0)] * 2


def test_activations_and_scores_of_a_text():
    model, text = small_model(), "abcab"
    activations = model.activations(text)
    assert activations.shape == (2, 5, 5)
    nats = [
        -following(model, text[:i])[model.charset.encode(text[i])[0]].log() for i in range(1, 5)
    ]
    np.testing.assert_allclose(model.score(text), nats, rtol=1e-9)
    for short in ("", "a"):
        assert model.score(short).shape == (0,)
        assert model.activations(short).shape == (2, 5, len(short))


def test_of_a_model_in_bfloat16():
    """Which NumPy does not have."""
    model = make(kind=GRUEncode, backend="reference")
    expected = model.activations("import os")
    model.model.bfloat16()
    found = model.activations("import os")
    assert found.dtype == np.float32 and np.abs(found - expected).max() < 0.1
    assert all(gate.dtype == np.float32 for gate in model.gates("import os"))
