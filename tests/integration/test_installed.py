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

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", *TINY)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A function that runs the installed command ``charrnn`` in a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    source = folder / "source"  # a copy, since a build leaves files in its folder
    source.mkdir()
    for name in ("charrnn", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "-w", folder / "wheel", source]
    subprocess.run([*pip, *wheel], check=True, cwd=folder)
    (file,) = (folder / "wheel").glob("charrnn-*.whl")
    packages = folder / "packages"
    subprocess.run([*pip, "install", "--no-deps", "--target", packages, file], check=True)
    work = folder / "empty"
    work.mkdir()
    (work / "text.txt").write_text(TEXT, "utf-8")
    # The packages of the environment, without the checkout that it has as an editable install.
    env = os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [str(packages / "bin" / "charrnn"), *map(str, arguments)]
        return subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)

    run.packages = packages
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
    assert [name for _, name, *_ in commands] == ["sample", "train"]
    for _, *arguments in commands:
        again = installed(*arguments, *(["length=20"] if arguments[0] == "sample" else []))
        assert again.returncode == 0, again.stderr
    assert "window 6" in again.stdout
