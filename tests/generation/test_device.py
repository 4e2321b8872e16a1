"""Where texts are sampled."""

import pytest
import torch

from charrnn import GRUEncode, InputError
from charrnn.generation.device import sampling_device


def test_auto_takes_the_faster(monkeypatch):
    small, large = GRUEncode(96, 128).eval(), GRUEncode(96, 512).eval()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert sampling_device("auto", small, 1, 500).type == "cpu"
    assert sampling_device("auto", small, 1, 1_000_000).type == "cpu"
    assert sampling_device("auto", large, 1, 1_000_000).type == "cuda"
    assert sampling_device("auto", small, 256, 100_000).type == "cuda"
    assert sampling_device("cpu", large, 1, 1_000_000).type == "cpu"
    assert sampling_device("cuda", small, 1, 1).type == "cuda"


def test_without_a_gpu(monkeypatch):
    model = GRUEncode(5, 6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sampling_device("auto", model, 1000, 1_000_000).type == "cpu"
    with pytest.raises(InputError, match=r"device=cuda: torch sees no NVIDIA GPU"):
        sampling_device("cuda", model, 1, 1)
    with pytest.raises(InputError, match="device=tpu must be auto, cpu or cuda"):
        sampling_device("tpu", model, 1, 1)
