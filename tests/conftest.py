"""Fixtures: command lines as processes, a text, and a folder for caches."""

import contextlib
import csv
import functools
import itertools
import json
import os
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # tests run beside each other
import torch

hypothesis.settings.register_profile("charrnn", deadline=None)  # where other programs run too
hypothesis.settings.load_profile("charrnn")
ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)  # tensors are small here, and threads would wait for one another
LIBRARY = Path(textwrap.__file__).read_text("utf-8")  # 18 KB of the interpreter's own
TEXT = LIBRARY[:6000]  # enough for most, and the less there is to validate


@dataclass
class Result:
    code: int
    out: str
    err: str


class Process:
    """A command line under way."""

    def __init__(self, zygote, pid: int, out: Path, err: Path):
        self.zygote, self.pid, self.out, self.err = zygote, pid, out, err

    def wait(self) -> Result:
        code = self.zygote.ask({"wait": self.pid})
        return Result(code, *(f.read_bytes().decode("utf-8") for f in (self.out, self.err)))


class CommandLine:
    """Runs train.py and sample.py; see zygote.py."""

    def __init__(self, folder: Path):
        self.folder, self.numbers = folder, itertools.count()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Tiny models gain nothing from threads, which wait badly where cores are few.
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def ask(self, request: dict) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self, script: str, *args: object, cwd: Path | None = None, env: dict | None = None
    ) -> Process:
        number = next(self.numbers)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        argv = [str(ROOT / script), *map(str, args)]
        request = {"argv": argv, "cwd": str(cwd or self.folder), "env": env or {}}
        request |= {"out": str(out), "err": str(err)}
        return Process(self, self.ask(request), out, err)

    def __call__(self, script: str, *args: object, **settings) -> Result:
        return self.start(script, *args, **settings).wait()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Encoded texts go where the tests' files go."""
    folder = tmp_path_factory.mktemp("cache")
    if "PYTEST_XDIST_WORKER" in os.environ:  # the processes of a test run compile once
        shared = tmp_path_factory.getbasetemp().parent / "native"
        shared.mkdir(exist_ok=True)
        (folder / "charrnn").mkdir()
        (folder / "charrnn" / "native").symlink_to(shared, target_is_directory=True)
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def command(tmp_path_factory, cache):
    from charrnn.gru import build

    with contextlib.suppress(build.BuildError):
        build.library()  # first, so that no command line says that it is being built
    line = CommandLine(tmp_path_factory.mktemp("processes"))
    yield line
    line.process.stdin.close()
    line.process.wait()
    line.process.stdout.close()


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, "utf-8")
    return file


TINY = ("model.hidden_size=8", "data.batch_size=3", "data.seq_len=7", "callbacks.samples.length=20")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, command):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, "utf-8")
    result = command(
        "train.py",
        f"data.path={folder / 'text.txt'}",
        f"hydra.run.dir={folder / 'run'}",
        "trainer.max_epochs=2",
        "trainer.limit_train_batches=20",
        *TINY,
    )
    assert result.code == 0, result.err
    return folder / "run"


def fit(folder: Path, text: str, model, task=None, data=None, optimizer=None, **settings):
    """Train on a text inside this process, with as little around it as there can be."""
    from pytorch_lightning import Trainer

    from charrnn.datamodule import CharDataModule
    from charrnn.task import CharTask

    file = folder / "text.txt"
    file.write_text(text, "utf-8", newline="")
    optimizer = optimizer or functools.partial(torch.optim.SGD, lr=1.0)
    scheduler = functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    task = CharTask(model, optimizer, scheduler, **task or {})
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=-1, default_root_dir=folder, **settings,
    )  # fmt: skip
    with warnings.catch_warnings():
        # Lightning's advice on what is done on purpose here; train.py does the same.
        warnings.filterwarnings("ignore", message="The number of training batches")
        warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer.fit(task, CharDataModule(str(file), cache_dir=str(folder), **data or {}))
    return task, trainer


def load(file: Path) -> dict:
    return torch.load(file, weights_only=True)


def same(a: object, b: object) -> bool:
    """Equal to the last bit, through containers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def metrics(run: Path) -> list[dict]:
    with open(run / "metrics.csv", newline="") as f:
        return list(csv.DictReader(f))
