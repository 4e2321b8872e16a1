"""A wheel, installed without the checkout, trains, samples and resumes in an empty folder."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, TEXT, TINY

import charrnn
from charrnn.cli.main import COMMANDS
from charrnn.gru import build, compile

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", *TINY)


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
QUICK_COMPILER = """#!/bin/sh
for last; do :; done
case "$last" in *level.so) exec c++ "$@";; *) exec cp "{library}" "$last";; esac
"""
"""Instead of compiling the kernels, which takes a minute, copies a library of this processor's."""


def make_wheel(folder, compiler):
    """A wheel of this checkout, and what was printed."""
    source = folder / "source"  # a copy, since a build leaves files in its folder
    source.mkdir()
    for name in ("charrnn", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheel = ["wheel", "-v", "--no-deps", "--no-build-isolation", "-w", folder / "wheel", source]
    env = os.environ | {"CXX": str(compiler)}
    made = subprocess.run([*PIP, *wheel], cwd=folder, env=env, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (file,) = (folder / "wheel").glob("charrnn-*.whl")
    return file, made.stdout + made.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A function that runs the installed command ``charrnn`` in a folder of its own.

    The wheel has kernels, and there is no compiler when it runs.
    """
    folder = tmp_path_factory.mktemp("installed")
    compiler = folder / "c++"
    compiler.write_text(QUICK_COMPILER.format(library=build.find()), "utf-8")
    compiler.chmod(0o755)
    file, _ = make_wheel(folder, compiler)
    packages = folder / "packages"
    subprocess.run([*PIP, "-q", "install", "--no-deps", "--target", packages, file], check=True)
    work = folder / "empty"
    work.mkdir()
    (work / "text.txt").write_text(TEXT, "utf-8")
    # The packages of the environment, without the checkout that it has as an editable install.
    env = os.environ | {"PYTHONPATH": str(packages), "CXX": "false"}
    env |= {"XDG_CACHE_HOME": str(folder / "cache")}

    def run(*arguments):
        command = [str(packages / "bin" / "charrnn"), *map(str, arguments)]
        return subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)

    run.packages, run.wheel = packages, file
    return run


def test_every_file_is_in_the_wheel(installed):
    """Kernels, pages and settings too; READMEs and results of benchmarks stay in the checkout."""
    kinds = {".py", ".cpp", ".h", ".cu", ".cuh", ".html", ".js", ".css", ".yaml", ".LICENSE"}
    for name, at in (("charrnn", "charrnn"), ("conf", "charrnn/conf")):
        for file in (ROOT / name).rglob("*"):
            if file.suffix in kinds:
                assert (installed.packages / at / file.relative_to(ROOT / name)).is_file(), file


def test_version_and_help(installed):
    version = installed("--version").stdout
    assert version.startswith(f"charrnn {charrnn.__version__} (torch ")
    assert "Lightning 2." in version and "Hydra 1." in version
    lines = installed("--help").stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    for name in COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines)


def test_a_run_and_the_commands_that_it_prints(installed):
    """Everything the end of a run prints is run as it stands, with twice as many rounds."""
    done = installed("train", "data.path=text.txt", "hydra.run.dir=it's a run", *SHORT)
    assert done.returncode == 0, done.stderr
    commands = [line.partition("  ")[2].strip() for line in done.stdout.splitlines()]
    commands = [shlex.split(line) for line in commands if line.startswith("charrnn ")]
    assert [name for _, name, *_ in commands] == ["sample", "train", "tensorboard"]
    for _, *arguments in commands[:2]:  # the last serves until it is interrupted
        again = installed(*arguments, *(["length=20"] if arguments[0] == "sample" else []))
        assert again.returncode == 0, again.stderr
    assert "window 6" in again.stdout
    assert "backend native" in done.stdout and "building" not in done.stderr


def test_the_wheel_is_for_a_platform_and_any_python(installed):
    python, abi, platform = installed.wheel.stem.split("-")[2:]
    assert (python, abi) == ("py3", "none") and platform != "any"
    names = [*compile.LEVELS, *(["level"] if len(compile.LEVELS) > 1 else [])]
    found = {file.stem for file in (installed.packages / "charrnn" / "gru" / "lib").iterdir()}
    assert found == set(names)


def test_without_a_compiler_the_wheel_is_pure_and_says_so(tmp_path):
    file, printed = make_wheel(tmp_path, "false")
    assert file.name.endswith("-py3-none-any.whl")
    assert "the C++ compiler failed: false ended with 1; this wheel is pure" in printed


@pytest.mark.slow
def test_kernels_of_a_wheel_without_a_compiler(tmp_path):
    """A wheel with all its kernels, installed beside this environment's packages."""
    file, printed = make_wheel(tmp_path, "c++")
    assert all(f"compiling the kernels for {level}" in printed for level in compile.LEVELS)
    packages = tmp_path / "packages"
    subprocess.run([*PIP, "-q", "install", "--no-deps", "--target", packages, file], check=True)
    for level in (None, *compile.LEVELS):
        env = os.environ | {"PYTHONPATH": str(packages), "CXX": "false"}
        env |= {build.VARIABLE: level} if level else {}
        script = ROOT / "tests" / "gru" / "try_wheel.py"
        tried = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert tried.returncode == 0, tried.stderr
        assert tried.stdout.startswith(f"{level or 'x86-64'}")
