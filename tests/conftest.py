"""Fixtures: command lines as processes, a text, and a folder for caches."""

import contextlib
import gc
import os

import hypothesis
import pooch
import pytest
import torch
from helpers import ROOT, TEXT, CommandLine, Result, short_run

hypothesis.settings.register_profile("charrnn", deadline=None)  # where other programs run too
hypothesis.settings.load_profile("charrnn")
torch.set_num_threads(1)  # tensors are small here, and threads would wait for one another


def pytest_configure(config):
    """Hide the GPU unless tests for it are selected by -m gpu."""
    if "gpu" not in (config.option.markexpr or "").replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same tests on every machine


def pytest_collection_modifyitems(items):
    """Skip the tests for a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no NVIDIA GPU"))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Encoded texts go where the tests' files go; the compiled kernels stay in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    native = pooch.os_cache("charrnn") / "native"
    try:
        native.mkdir(parents=True, exist_ok=True)
    except OSError:  # of a user without a home
        native = tmp_path_factory.mktemp("native")
    (folder / "charrnn").mkdir()
    (folder / "charrnn" / "native").symlink_to(native, target_is_directory=True)
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def command(tmp_path_factory, cache):
    """A function that runs a command line as a process: ``command("train.py", "seed=2", ...)``."""
    from charrnn.gru import build

    with contextlib.suppress(build.BuildError):
        build.library()  # first, so that no command line says that it is being built
    line = CommandLine(tmp_path_factory.mktemp("processes"))
    yield line
    line.process.stdin.close()
    line.process.wait()
    line.process.stdout.close()


@pytest.fixture
def invoke(monkeypatch, capfd):
    """Runs a command inside this process: ``invoke("train", *arguments, cwd=folder)``.

    Much quicker than a process of its own, for what ends before it trains. Returns a ``Result``.
    """
    from charrnn.cli.main import main

    gc.freeze()  # what was imported need not be looked through at each collection

    def run(name, *arguments, cwd):
        code = 0
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            script = None if name not in ("train", "sample") else str(ROOT / f"{name}.py")
            try:
                main([name, *map(str, arguments)], script=script)
            except SystemExit as end:
                code = end.code or 0
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def text_file(tmp_path):
    """A file with ``TEXT``."""
    file = tmp_path / "text.txt"
    file.write_text(TEXT, "utf-8")
    return file


@pytest.fixture(scope="session")
def trained(tmp_path_factory, cache):
    """The folder of a short run, trained inside this process."""
    import charrnn

    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, "utf-8")
    charrnn.train(overrides=short_run(folder))
    return folder / "run"
