"""Compiling, keeping and loading of CUDA kernels, without a GPU."""

import ctypes
import multiprocessing
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from charrnn.errors import InputError
from charrnn.gru import GRU
from charrnn.gru.cuda import exact, nvrtc, plan, rows
from charrnn.gru.cuda.cut import Cut


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that counts, a driver that knows its version, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def compile_text(text, options, architecture):
        calls.append((options, architecture))
        return f"{text} {options} {architecture}".encode()

    monkeypatch.setattr(nvrtc, "compile_text", compile_text)
    monkeypatch.setattr(nvrtc, "nvrtc_version", lambda: "13.0")
    monkeypatch.setattr(nvrtc, "driver", lambda name, version: None)
    return calls


def test_compiled_once_for_each_variant_and_card(compiler, tmp_path):
    for _ in range(2):
        assert nvrtc.cached("kernel", ["-D1"], 90) == b"kernel ['-D1'] 90"
    assert len(compiler) == 1
    nvrtc.cached("kernel", ["-D2"], 90)
    nvrtc.cached("kernel", ["-D1"], 80)
    nvrtc.cached("other", ["-D1"], 90)
    assert len(compiler) == 4
    assert len(list((tmp_path / "charrnn" / "cuda").glob("*.cubin"))) == 4


def test_a_damaged_file_is_compiled_again(compiler, tmp_path):
    nvrtc.cached("kernel", [], 90)
    (file,) = (tmp_path / "charrnn" / "cuda").glob("*.cubin")
    file.write_bytes(b"torn")
    assert nvrtc.cached("kernel", [], 90) == b"kernel [] 90"
    assert len(compiler) == 2 and file.read_bytes() == b"kernel [] 90"


def compile_slowly(barrier, queue):
    barrier.wait()
    queue.put(nvrtc.cached("kernel", [], 90))


def test_processes_wait_for_the_one_that_compiles(compiler, tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    barrier, queue, count = context.Barrier(3), context.Queue(), context.Value("i", 0)

    def compile_text(*arguments):
        with count:
            count.value += 1
        time.sleep(0.2)  # so that others arrive
        return b"kernel [] 90"

    monkeypatch.setattr(nvrtc, "compile_text", compile_text)
    several = [context.Process(target=compile_slowly, args=(barrier, queue)) for _ in range(3)]
    for process in several:
        process.start()
    assert [queue.get(timeout=60) for _ in several] == [b"kernel [] 90"] * 3
    for process in several:
        process.join()
    assert count.value == 1
    assert len(list((tmp_path / "charrnn" / "cuda").glob("*.cubin"))) == 1


def test_without_nvrtc(monkeypatch, capfd):
    """One line, and cuDNN; a backend that is named is an error."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def missing(*args):
        raise nvrtc.Unavailable("libnvrtc.so.13 is neither in torch's wheels nor installed")

    monkeypatch.setattr(nvrtc, "module", missing)
    gpu = torch.device("cuda")
    assert GRU(3, 4).choose_backend(gpu) == "torch"
    assert GRU(3, 4, reset="before").choose_backend(gpu) == "reference"
    said = capfd.readouterr().err
    assert "libnvrtc.so.13 is neither" in said and "auto takes torch" in said
    with pytest.raises(InputError, match=r"backend=native: .*libnvrtc"):
        GRU(3, 4, backend="native").choose_backend(gpu)


def test_a_failure_is_kept(monkeypatch):
    """Each window asks for kernels, several times."""
    calls = []

    def missing():
        calls.append(1)
        raise nvrtc.Unavailable("libnvrtc.so.13 is neither in torch's wheels nor installed")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(nvrtc, "driver", lambda name, version: None)
    monkeypatch.setattr(nvrtc, "nvrtc_version", missing)
    for _ in range(2):
        with pytest.raises(nvrtc.Unavailable, match="neither in torch's wheels"):
            nvrtc.module(("many.cu",), (("A_FAILURE", 1),), 0)
    assert len(calls) == 1


def test_a_thread_without_a_context_gets_one(monkeypatch):
    """Once: as in a backward pass whose first kernel is ours."""
    said, current = [], []

    def driver(name, context):
        said.append(name)
        context._obj.value = 1 if current else None

    stream = SimpleNamespace(synchronize=lambda: said.append("synchronize"))
    monkeypatch.setattr(nvrtc, "driver", driver)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    for there, expected in (
        (False, ["cuCtxGetCurrent", "synchronize"]), (True, ["cuCtxGetCurrent"])
    ):  # fmt: skip
        said.clear()
        current[:] = [1] * there
        thread = threading.Thread(target=lambda: [nvrtc.need_context() for _ in range(2)])
        thread.start()
        thread.join()
        assert said == expected


@pytest.mark.gpu
def test_a_launch_from_a_new_thread():
    x, parts = torch.full((9,), -3.0, device="cuda"), torch.zeros(1, device="cuda")
    given = "largest_parts", (1,), x, None, None, parts, 2, 1, 0
    thread = threading.Thread(target=rows.kernels(0).launch, args=given)
    thread.start()
    thread.join()
    assert parts == 3


def test_what_auto_takes_on_a_gpu(monkeypatch, capfd):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(nvrtc, "module", lambda *args: None)
    monkeypatch.setattr(plan, "card", lambda index: plan.Card((9, 0), 132, 227 << 10))
    gpu = torch.device("cuda")
    for hidden, count, expected in [
        (64, 16, "torch"), (128, 16, "native"), (512, 1, "native"), (1024, 256, "native"),
        (2048, 64, "native"), (2048, 65, "torch"), (3000, 1, "torch"),
    ]:  # fmt: skip
        with torch.device("meta"):
            assert GRU(3, hidden).choose_backend(gpu, count) == expected
            assert GRU(3, hidden, gate="hard_sigmoid").choose_backend(gpu, count) == "native"
    assert "cuDNN is faster" in GRU(3, 64).describe_backend(gpu, 16)
    assert GRU(3, 512).describe_backend(gpu, 16) == "native"
    assert not capfd.readouterr().err
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert GRU(3, 512).describe_backend(gpu, 16).startswith("torch (torch.backends.cudnn")


def nvrtc_is_there():
    try:
        return bool(nvrtc.nvrtc())
    except nvrtc.Unavailable:
        return False


@pytest.mark.skipif(not nvrtc_is_there(), reason="torch brought no NVRTC")
@pytest.mark.parametrize("architecture", [80, 90])
def test_every_source_compiles(architecture):
    cuts = [Cut(128, 128, True, True), Cut(256, 16, True, False), Cut(512, 32, False, False)]
    variants = [(cut.files, cut.settings) for cut in cuts]
    variants += [(rows.FILES, ()), (("many.cu",), ())]
    variants += [(("step.cu",), (("REAL", "double"), ("HARD", 0)))]
    variants += [(("instructions.cuh", "draw.cuh", "decode.cu"), (("HARD", 1),))]
    for files, settings in variants:
        options = ["--std=c++17", *(f"-DCFG_{name}={value}" for name, value in settings)]
        assert nvrtc.compile_text(nvrtc.source(files), options, architecture)
    with pytest.raises(nvrtc.Unavailable, match="error"):
        nvrtc.compile_text("nonsense", [], architecture)


def test_arguments():
    tensor = torch.zeros(3)
    assert nvrtc.as_argument(tensor).value == tensor.data_ptr()
    assert isinstance(nvrtc.as_argument(3), ctypes.c_int)
    assert nvrtc.as_argument(None).value is None
    assert exact.grid(17, 33) == (3, 2) and rows.index_of(torch.device("cuda", 1)) == 1
