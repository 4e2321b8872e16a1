"""Fixtures for the kernels: numbers of threads, buffers of NaN, and the devices of CUDA kernels.

A test of a new kernel takes these, and compares with ``reference`` at odd sizes.
"""

import shutil

import pytest
import torch
from gru import emulator

from charrnn.gru import native
from charrnn.gru.cuda import exact, layer, many, rows


@pytest.fixture(params=[1, 2], ids=["one_thread", "two_threads"])
def threads(request):
    """Each number of threads that a kernel for CPUs may share its work among."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def full_of_nan(monkeypatch):
    """Elements that a kernel does not write are NaN; so is the memory that kernels keep."""

    def empty(like, *size):
        return torch.full(size, torch.nan, dtype=like.dtype)

    monkeypatch.setattr(native, "empty", empty)
    monkeypatch.setattr(native, "kept_empty", empty)


@pytest.fixture
def cuda_full_of_nan(monkeypatch):
    """Whatever CUDA kernels do not write is not a number."""

    def empty(like, *size):
        return torch.full(size, torch.nan, dtype=like.dtype, device=like.device)

    for module in (rows, layer, many, exact):
        monkeypatch.setattr(module, "empty", empty)


@pytest.fixture
def emulated(monkeypatch):
    """CUDA kernels run on the CPU, in the emulator."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ for the emulator")
    emulator.install(monkeypatch)


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Where CUDA kernels run: in the emulator on a CPU, and on a GPU if there is one."""
    if request.param == "emulated":
        request.getfixturevalue("emulated")
    return torch.device("cpu" if request.param == "emulated" else "cuda")
