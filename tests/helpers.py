"""What tests share besides fixtures: a text, command lines as processes, a fit inside this process.

A new test of a room goes into ``tests/<room>/``, imports what it needs from here, and works on
``TEXT`` and ``TINY`` models; a test of a whole command line takes the fixture ``command`` and goes
into ``tests/integration/``.
"""

import csv
import functools
import itertools
import json
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = Path(textwrap.__file__).read_text("utf-8")  # 18 KB of the interpreter's own
TEXT = LIBRARY[:6000]  # enough for most, and the less there is to validate
TINY = ("model.hidden_size=8", "data.batch_size=3", "data.seq_len=7", "callbacks.samples.length=20")


def short_run(folder: Path) -> list[str]:
    """The settings of the fixture ``trained``: a run of 40 windows in ``folder / "run"``."""
    return [
        f"data.path={folder / 'text.txt'}", f"hydra.run.dir={folder / 'run'}",
        "trainer.max_epochs=2", "trainer.limit_train_batches=20", *TINY,
    ]  # fmt: skip


@dataclass
class Result:
    """What a command line came to: its exit code and what it printed."""

    code: int
    out: str
    err: str


class Process:
    """A command line under way."""

    def __init__(self, zygote, pid: int, out: Path, err: Path):
        self.zygote, self.pid, self.out, self.err = zygote, pid, out, err

    def wait(self) -> Result:
        code = self.zygote.ask({"wait": self.pid})
        return Result(
            code, *(f.read_bytes().decode("utf-8", "replace") for f in (self.out, self.err))
        )


class CommandLine:
    """Runs train.py and sample.py; see zygote.py."""

    def __init__(self, folder: Path):
        self.folder, self.numbers = folder, itertools.count()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: dict) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self, script: str, *args: object, cwd: Path | None = None, env: dict | None = None,
        session: bool = False,
    ) -> Process:  # fmt: skip
        number = next(self.numbers)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        argv = [str(ROOT / script), *map(str, args)]
        request = {"argv": argv, "cwd": str(cwd or self.folder), "env": env or {}}
        request |= {"out": str(out), "err": str(err), "session": session}
        return Process(self, self.ask(request), out, err)

    def __call__(self, script: str, *args: object, **settings) -> Result:
        return self.start(script, *args, **settings).wait()


def fit(folder: Path, text: str, model, task=None, data=None, optimizer=None, **settings):
    """Train on a text inside this process, with as little around it as there can be."""
    from pytorch_lightning import Trainer

    from charrnn.data.datamodule import CharDataModule
    from charrnn.training.task import CharTask

    file = folder / "text.txt"
    file.write_text(text, "utf-8", newline="")
    optimizer = optimizer or functools.partial(torch.optim.SGD, lr=1.0)
    scheduler = functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    task = CharTask(model, optimizer, scheduler, **task or {})
    settings = {"accelerator": "cpu", "num_sanity_val_steps": -1} | settings
    settings.setdefault("enable_checkpointing", False)
    trainer = Trainer(
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, **settings,
    )  # fmt: skip
    with warnings.catch_warnings():
        # Lightning's advice on what is done on purpose here; train.py does the same.
        warnings.filterwarnings("ignore", message="The number of training batches")
        warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer.fit(task, CharDataModule(str(file), cache_dir=str(folder), **data or {}))
    return task, trainer


def load(file: Path) -> dict:
    """A checkpoint's dictionary."""
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
    """The rows of a run's metrics.csv, as text by column."""
    with open(run / "metrics.csv", newline="") as f:
        return list(csv.DictReader(f))


def state(run):
    """What must be the same to the last bit."""
    checkpoint = load(run / "checkpoints" / "last.ckpt")
    ours = checkpoint["charrnn"]
    kept = ("carry", "position", "random", "scheduler", "windows", "rounds", "validations")
    return {
        "weights": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer_states"],
        "metrics": checkpoint["callbacks"],
        "loops": {
            k: v for k, v in checkpoint["loops"]["fit_loop"].items() if "state_dict" not in k
        },
    } | {k: ours[k] for k in kept}


def numbers(run):
    """metrics.csv without the one column that is a matter of time."""
    return [{k: v for k, v in r.items() if k != "train/chars_per_second"} for r in metrics(run)]


def wait_for(*files, seconds=120):
    """Wait until one of the files is there."""
    end = time.monotonic() + seconds
    while not any(file.exists() for file in files):
        assert time.monotonic() < end, f"none of {files} after {seconds} s"
        time.sleep(0.002)


def listing(folder):
    """Everything below a folder, sorted: nothing may be added by what is refused."""
    return sorted(str(path) for path in folder.rglob("*"))


def assert_one_line(result, words):
    """A result must be exit code 2 and one line on standard error with all of the words."""
    assert result.code == 2, result
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert all(word in result.err for word in words), result.err
    assert "Traceback" not in result.out
