"""The native library: built once, atomically, under a lock, in the background; or of a wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from charrnn.errors import InputError
from charrnn.gru import GRU, build, compile, module


def built_library():
    """The file of this process's library, among those in the user's cache."""
    return Path(build.library()._name)


@pytest.fixture
def fresh(monkeypatch):
    """Forget the library of this process."""
    monkeypatch.setattr(build, "_result", None)
    monkeypatch.setattr(build, "_background", None)
    module.print_once.cache_clear()


@pytest.fixture
def built(tmp_path_factory):
    """A folder with a copy of the library that the other tests use."""
    build.library()
    root = tmp_path_factory.mktemp("native")
    for file in built_library().parent.glob(f"{built_library().stem}.*"):
        (root / file.name).write_bytes(file.read_bytes())
    return root


@pytest.fixture
def builds(monkeypatch):
    """Record builds, and replace the compiler by a copy of the library."""
    library, folders = built_library(), []

    def compile_kernels(file, *_):
        folders.append(file.parent)
        file.write_bytes(library.read_bytes())

    monkeypatch.setattr(build, "compile_kernels", compile_kernels)
    return folders


def test_a_lock_of_a_killed_process_is_free(tmp_path, builds, capfd):
    slow = (
        "import time; from charrnn.gru import build;"
        "build.compile_kernels = lambda *_: (print('now', flush=True), time.sleep(600));"
        "build.library()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout.readline() == "now\n"
    process.kill()
    process.communicate()
    root = tmp_path / "charrnn" / "native"
    assert len(list(root.iterdir())) == 2  # the lock, and the folder of the killed process
    build.find_or_build(root)
    assert len(builds) == 1
    assert sorted(file.suffix for file in root.iterdir()) == [".digest", ".lock", ".so"]
    assert "built in" in capfd.readouterr().err


def test_a_build_is_reused(built, builds):
    build.find_or_build(built)
    assert not builds


def test_a_truncated_library_is_built_again(built, builds):
    (library,) = built.glob("*.so")
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(content[: len(content) // 2])
    build.find_or_build(built)
    assert len(builds) == 1 and library.read_bytes() == content


def test_a_changed_library_is_built_again(built, builds):
    (library,) = built.glob("*.so")
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(content[:-9] + b"x" + content[-8:])
    assert not build.is_intact(library)
    build.find_or_build(built)
    assert len(builds) == 1 and library.read_bytes() == content


@pytest.mark.parametrize("change", ["source", "flags", "processor"])
def test_a_changed_environment_builds_another_library(change, built, builds, monkeypatch, tmp_path):
    march = "native"
    if change == "source":
        file = tmp_path / "more.h"
        file.write_text("// more", "utf-8")
        monkeypatch.setattr(build, "SOURCES", [*build.SOURCES, file])
    elif change == "flags":
        monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-g"])
    else:
        march = "x86-64-v3"
    build.find_or_build(built, march)
    assert len(builds) == 1 and len(list(built.glob("*.so"))) == 2


def test_without_a_compiler(fresh, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    gru = GRU(3, 4)
    assert gru.choose_backend(torch.device("cpu")) == "torch"
    assert gru.choose_backend(torch.device("cpu")) == "torch"
    printed = capfd.readouterr().err
    assert (
        printed.count("\n") == 1 and "no C++ compiler" in printed and "auto takes torch" in printed
    )
    assert GRU(3, 4, reset="before").choose_backend(torch.device("cpu")) == "reference"
    with pytest.raises(InputError, match=r"no C\+\+ compiler"):
        GRU(3, 4, backend="native")


@pytest.mark.parametrize("compiler", ["", "false"])
def test_a_compiler_that_is_none(fresh, tmp_path, monkeypatch, compiler):
    """An empty CXX is no name, and a program that fails is no compiler: one line, no traceback."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    if compiler:
        with pytest.raises(build.BuildError, match="compiler failed"):
            build.library()
    else:
        assert build.find_compiler() == ["c++"]


def test_a_compiler_that_fails(fresh, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", ["-no-such-flag"])
    with pytest.raises(InputError, match=r"compiler failed.*error: .*no-such-flag"):
        GRU(3, 4, backend="native")
    assert GRU(3, 4).choose_backend(torch.device("cpu")) == "torch"
    assert "compiler failed" in capfd.readouterr().err
    assert not list((tmp_path / "charrnn" / "native").glob("*.so"))


def test_a_compiler_with_arguments(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", f"{sys.executable} -c 'import sys; sys.exit(3)'")
    with pytest.raises(build.CompileError, match=r"compiler failed: .*python.* ended with 3"):
        build.compile_kernels(tmp_path / "a.so", "native", build.FLAGS)


def test_a_home_that_cannot_be_written(fresh, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no-such-folder")
    assert GRU(3, 4).choose_backend(torch.device("cpu")) == "torch"
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and "/proc/no-such-folder" in printed


def test_in_the_background(builds, fresh, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.begin()
    build.begin()
    assert build.library().bf16_path() >= 0
    assert len(builds) == 1 and capfd.readouterr().err.count("built in") == 1


def test_a_failure_in_the_background_is_said_once(fresh, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    build.begin()
    for _ in range(2):
        with pytest.raises(build.BuildError, match="compiler failed"):
            build.library()
    assert capfd.readouterr().err.count("building") == 1


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The libraries of a wheel: copies of this process's one, and no compiler."""
    library = built_library().read_bytes()
    monkeypatch.setattr(build, "SHIPPED", tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv(build.VARIABLE, raising=False)
    for level in build.LEVELS:
        (tmp_path / f"{level}.so").write_bytes(library)
    return tmp_path


@pytest.mark.skipif(compile.ARM, reason="levels of x86-64")
@pytest.mark.parametrize(("level", "name"), [(1, "x86-64"), (3, "x86-64-v3"), (4, "x86-64-v4")])
def test_a_wheel_has_a_library_for_each_level(shipped, fresh, level, name, monkeypatch):
    monkeypatch.setattr(build, "cpu_level", lambda file: level)
    (shipped / "level.so").touch()
    assert build.find().stem == name
    assert build.library()._name == str(shipped / f"{name}.so")


@pytest.mark.skipif(compile.ARM, reason="levels of x86-64")
def test_a_level_by_the_environment_variable(shipped, fresh, monkeypatch):
    monkeypatch.setenv(build.VARIABLE, "x86-64-v3")
    assert build.find() == shipped / "x86-64-v3.so"
    monkeypatch.setenv(build.VARIABLE, "native")  # compiles, also where there is a wheel's
    with pytest.raises(build.BuildError, match="no-such-compiler is not on PATH"):
        build.find()


@pytest.mark.skipif(compile.ARM or not shutil.which("c++"), reason="levels of x86-64; no c++")
def test_the_level_of_this_processor(tmp_path):
    """That which the kernel of Linux lists; torch needs AVX2 to name a capability."""
    compile.compile_level(tmp_path / "level.so")
    found = build.cpu_level(tmp_path / "level.so")
    known = {"AVX512": 4, "AVX2": 3}
    assert found == known.get(torch.backends.cpu.get_cpu_capability(), found)


def test_native_says_why_not():
    gru = GRU(3, 4, backend="native")
    with pytest.raises(InputError, match="runs on a CPU"):
        gru.choose_backend(torch.device("meta"))


def test_auto_says_why_it_is_not_native_on_a_gpu(monkeypatch, capfd):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert GRU(3, 4).choose_backend(torch.device("cuda")) == "torch"
    assert "torch sees no NVIDIA GPU; auto takes torch" in capfd.readouterr().err
