"""Building the native library: once, whole, and by one process at a time."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from charrnn.errors import InputError
from charrnn.gru import GRU, build, module

USE = """
import torch
from charrnn.gru import GRU, build
build.FLAGS = ["-O0", *build.FLAGS[1:]]  # sooner made
gru = GRU(3, 4, backend="native")
print(gru(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1, 1, 4))[0].shape)
"""


def start(cache, script=USE, own_session=False, **environment):
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)} | environment
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=own_session,
    )


@pytest.fixture
def fresh(monkeypatch):
    """As if this process had not asked for the library yet."""
    monkeypatch.setattr(build, "_result", None)
    module.print_once.cache_clear()


@pytest.fixture
def built(tmp_path_factory):
    """A library in a folder of its own, copied from the one that the other tests use."""
    build.library()
    root = tmp_path_factory.mktemp("native")
    for file in (build.pooch.os_cache("charrnn") / "native").iterdir():
        (root / file.name).write_bytes(file.read_bytes())
    return root


@pytest.fixture
def builds(monkeypatch):
    """Counts builds, each of which costs seconds, and makes them copies."""
    build.library()
    (library,) = (build.pooch.os_cache("charrnn") / "native").glob("*.so")
    made = []

    def compile_in(folder):
        made.append(folder)
        (folder / "made.so").write_bytes(library.read_bytes())

    monkeypatch.setattr(build, "compile_in", compile_in)
    return made


def test_two_processes_at_once_build_once(tmp_path):
    """Even after a third, which was killed in the middle of the compiler's work."""
    killed = start(tmp_path, own_session=True)
    assert "building" in killed.stderr.readline()
    while not list(tmp_path.rglob("*.ninja")):
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(killed.pid, signal.SIGKILL)  # the compiler too, as when a machine stops
    killed.communicate()
    assert not list(tmp_path.rglob("*.digest"))
    processes = [start(tmp_path) for _ in range(2)]
    results = [process.communicate() for process in processes]
    assert [out for out, _ in results] == ["torch.Size([2, 1, 4])\n"] * 2, results
    said = "".join(err for _, err in results)
    assert said.count("building the native backend") == said.count("built in") == 1
    kept = sorted(file.suffix for file in (tmp_path / "charrnn" / "native").iterdir())
    assert kept == [".digest", ".lock", ".so"]


def test_a_killed_builder_holds_nobody_up(tmp_path, builds, capfd):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    slow = (
        "import time; from charrnn.gru import build;"
        "build.compile_in = lambda folder: (print('now', flush=True), time.sleep(600));"
        "build.library()"
    )
    process = start(tmp_path, slow, **environment)
    assert process.stdout.readline() == "now\n"
    process.kill()
    process.communicate()
    root = tmp_path / "charrnn" / "native"
    assert len(list(root.iterdir())) == 2  # the lock, and what the builder left
    build.open_or_build(root)
    assert len(builds) == 1
    assert sorted(file.suffix for file in root.iterdir()) == [".digest", ".lock", ".so"]
    assert "built in" in capfd.readouterr().err


def test_found_again(built, builds):
    build.open_or_build(built)
    assert not builds


def test_a_torn_library_is_built_again(built, builds):
    (library,) = built.glob("*.so")
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(content[: len(content) // 2])
    build.open_or_build(built)
    assert len(builds) == 1 and library.read_bytes() == content


@pytest.mark.parametrize("change", ["source", "flags", "torch"])
def test_a_stale_library_is_left(change, built, builds, monkeypatch, tmp_path):
    if change == "source":
        file = tmp_path / "more.h"
        file.write_text("// more", "utf-8")
        monkeypatch.setattr(build, "SOURCES", [*build.SOURCES, file])
    elif change == "flags":
        monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-g"])
    else:
        monkeypatch.setattr(torch, "__version__", "0")
    build.open_or_build(built)
    assert len(builds) == 1 and len(list(built.glob("*.so"))) == 2


def test_without_a_compiler(fresh, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    gru = GRU(3, 4)
    assert gru.choose_backend(torch.device("cpu")) == "torch"
    assert gru.choose_backend(torch.device("cpu")) == "torch"
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "no C++ compiler" in said and "auto takes torch" in said
    assert GRU(3, 4, reset="before").choose_backend(torch.device("cpu")) == "reference"
    with pytest.raises(InputError, match=r"no C\+\+ compiler"):
        GRU(3, 4, backend="native")


def test_a_compiler_that_fails(fresh, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", ["-no-such-flag"])
    with pytest.raises(InputError, match=r"compiler failed.*error: .*no-such-flag"):
        GRU(3, 4, backend="native")
    assert GRU(3, 4).choose_backend(torch.device("cpu")) == "torch"
    assert "compiler failed" in capfd.readouterr().err
    assert not list((tmp_path / "charrnn" / "native").glob("*.so"))


def test_native_is_for_the_cpu():
    gru = GRU(3, 4, backend="native")
    with pytest.raises(InputError, match="runs on a CPU"):
        gru.choose_backend(torch.device("cuda"))
    assert GRU(3, 4).choose_backend(torch.device("cuda")) == "torch"


def test_after_a_fork(command, text_file, tmp_path):
    """The command line runs in a process forked from one that imported torch."""
    result = command(
        "train.py", f"data.path={text_file}", f"hydra.run.dir={tmp_path / 'run'}",
        "model.backend=native", "trainer.max_steps=3", "data.seq_len=9", "model.hidden_size=9",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "backend native" in result.out
