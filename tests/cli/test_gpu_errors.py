"""What went wrong on a GPU, in one line."""

import pytest
import torch

from charrnn.cli.errors import explain
from charrnn.gru.cuda import nvrtc


@pytest.fixture
def reported():
    """A kernel's report, put back at the end."""
    yield nvrtc.status()
    nvrtc.status().zero_()


def test_a_wait_in_vain(reported):
    reported.copy_(torch.tensor([nvrtc.DEADLOCK, 100, 16, 512]))
    line = explain(RuntimeError("CUDA error: unspecified launch failure\nmore"))
    assert "waited in vain" in line and "T=100, B=16, H=512" in line
    assert explain(RuntimeError("CUDA error: unspecified launch failure")) is None


def test_an_index_out_of_range(reported):
    reported.copy_(torch.tensor([nvrtc.WRONG_INDEX, -3, 96, 0]))
    with pytest.raises(IndexError) as raised:
        nvrtc.raise_failure()
    assert explain(raised.value) == "index -3 is none of the vocabulary of 96 characters"


def test_out_of_memory():
    line = explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"))
    assert "data.batch_size" in line and "\n" not in line
