"""The estimate of a run's memory, and the line where that is more than is free."""

import functools

import pytest
import torch
from omegaconf import OmegaConf

from charrnn import GRUEncode
from charrnn.cli import memory, prepare

MEASURED = [
    (256, 64, 100, 2, True, "RMSprop", 111),
    (256, 64, 100, 4, True, "RMSprop", 187),
    (256, 64, 100, 2, False, "RMSprop", 200),
    (256, 64, 100, 4, False, "RMSprop", 337),
    (1000, 4, 20, 2, True, "RMSprop", 241),
    (1000, 4, 20, 2, False, "Adam", 289),
]
"""H, B, T, L, the backend, the optimizer, and MB of a process above that of its imports (V 100)."""


@pytest.mark.parametrize("row", MEASURED, ids=str)
def test_the_estimate_is_near_what_was_measured(row):
    hidden, rows, length, layers, is_native, optimizer, measured = row
    with torch.device("meta"):
        model = GRUEncode(100, hidden, layers)
    estimated = memory.needed_bytes(model, length, rows, optimizer, is_native) / 1e6
    assert 0.6 < estimated / measured < 1.3, estimated


def test_free_memory_is_known_here():
    assert memory.free_bytes(torch.device("cpu")) > 1e6


def test_a_run_that_cannot_fit_says_so_before_its_model_is_made(monkeypatch, capsys):
    built = []

    def build(vocab_size):
        built.append(torch.get_default_device().type)
        return GRUEncode(vocab_size, 5000)

    config = OmegaConf.create({
        "model": {"_target_": "charrnn.models.GRUEncode"}, "data": {"batch_size": 512},
        "optimizer": {"_target_": "torch.optim.Adam"},
    })  # fmt: skip
    warn = functools.partial(prepare.warn_of_shortage, config, build, 100, torch.device("cpu"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    warn()
    line = capsys.readouterr().out
    assert line.startswith("memory: this run needs about ") and line.count("\n") == 1
    assert "GB, and 1.0 GB are free; a smaller model.hidden_size" in line and built == ["meta"]
    for free in (10**12, None):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        warn()
    assert capsys.readouterr().out == ""
