"""Fault points, tried one after the other by a process that has imported everything once.

``python points.py FOLDER SHARE [MINUTES]`` with the shim in LD_PRELOAD tries SHARE of all points (1
tries all), begins none after some minutes, and prints a line of JSON: how many were tried and held,
by scenario and kind, and what was seen of those that did not hold. Each point is a forked child.
"""

import contextlib
import ctypes
import errno
import gc
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from replay import RENAME, Disk, read_log, write_image

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

COUNT, FAIL, KILL_BEFORE, KILL_AFTER = range(4)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)
SECONDS = 60
"""After which a child hangs."""
SMALL = (
    "model.hidden_size=4", "data.batch_size=2", "data.seq_len=25", "data.valid_size=50",
    "trainer.limit_train_batches=2", "callbacks.samples=null", "trainer.log_every_n_steps=1",
    "callbacks.checkpoint.every_n_steps=1", "model.backend=torch",
)  # fmt: skip


@dataclass
class Ended:
    """How a child ended."""

    code: int
    out: str
    calls: list
    """Its changes to files, as in the log."""
    count: int
    """Its calls that are fault points."""

    def broken(self) -> str:
        """What is wrong with the way it ended; empty if nothing is."""
        if "Traceback" in self.out:
            return "traceback: " + self.out[-1500:]
        if self.code == 2 and self.out.count("error: ") != 1:
            return f"code 2 without its line: {self.out[-300:]}"
        if self.code not in (0, 1, 2, -signal.SIGKILL):
            return f"code {self.code}: {self.out[-300:]}"
        return ""


@dataclass
class Tally:
    tried: int = 0
    held: int = 0
    failures: list = field(default_factory=list)


def run_child(act, root: Path, how: int, at: int, error: int) -> Ended:
    """Run a function in a forked child with the shim armed for files below a folder."""
    out, log, number = (root.parent / f"{root.name}.{name}" for name in ("out", "log", "count"))
    pid = os.fork()
    if not pid:
        code = 1
        try:
            files = [os.open(f, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for f in (out, log, number)]
            os.dup2(files[0], 1), os.dup2(files[0], 2)
            sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))
            shim = ctypes.CDLL(None)
            shim.fault_arm(os.fsencode(root), how, ctypes.c_long(at), error, files[1])
            try:
                act()
                code = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            os.write(files[2], str(shim.fault_disarm()).encode())
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGABRT)
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(found[1])
    count = int(number.read_text() or 0) if number.exists() else 0
    return Ended(code, out.read_text("utf-8", "replace"), read_log(log), count)


def train(*arguments: str) -> None:
    from charrnn.cli.main import main

    main(["train", *arguments])


class Scenario:
    """What is tried: a command in a folder, and what must be true of the folder afterwards."""

    name: str
    weight = 1.0
    """Of a share of its points, for scenarios that are cheap or dear."""

    def __init__(self, base: Path, text: Path, cache: Path):
        self.base, self.text, self.cache = base, text, cache
        self.template = base / f"{self.name}-before"
        self.template.mkdir()
        self.known: dict[str, str] = {}

    def act(self, folder: Path) -> None:
        raise NotImplementedError

    def verify(self, folder: Path, ended: Ended) -> str:
        """What is wrong with a folder after a child; empty if nothing is."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Run it without a fault."""
        folder = self.fresh("whole")
        self.whole = run_child(lambda: self.act(folder), folder, COUNT, 0, 0)
        assert self.whole.code == 0, self.whole.out
        self.expect(folder)

    def expect(self, folder: Path) -> None:
        raise NotImplementedError

    def fresh(self, name: str) -> Path:
        """A folder as it is before the command."""
        folder = self.base / f"{self.name}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template, folder)
        return folder

    def settle(self, folder: Path, ended: Ended) -> str:
        """:meth:`verify`, once for each content of a folder."""
        if problem := ended.broken():
            return problem
        key = f"{ended.code == 0} {tree_hash(folder)}"
        if key not in self.known:
            self.known[key] = self.verify(folder, ended)
        return self.known[key]


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)} {path.is_dir()}\0".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def numbers(run: Path):
    from helpers import metrics

    times = "train/chars_per_second"
    return [{k: v for k, v in row.items() if k != times} for row in metrics(run)]


def result(run: Path) -> dict:
    """What of a run must be the same to the last bit."""
    from helpers import state

    return state(run) | {"rows": numbers(run)}


def leftovers(folder: Path) -> list[str]:
    """Scratch files that are left."""
    return [f.name for f in folder.rglob(".*") if f.is_file()]


class Train(Scenario):
    """A run of four windows: trained, saved after each, validated, logged, ended."""

    name, rounds = "train", 2

    def act(self, folder: Path) -> None:
        """As the command does, from settings that were composed once."""
        from charrnn.cli.errors import one_line_errors
        from charrnn.cli.streams import make_lenient
        from charrnn.cli.train import run_single

        os.chdir(folder)
        make_lenient()
        with one_line_errors(self.command):
            run_single(self.app, self.command, self.config)

    def compose(self) -> None:
        from charrnn.cli import hydra_internals
        from charrnn.cli.arguments import Program, parse
        from charrnn.cli.keys import CONF

        self.command = parse("train", self.arguments("run"), Program(), {})
        self.open = contextlib.ExitStack()
        self.app = self.open.enter_context(
            hydra_internals.application("train", CONF, "train", None, None)
        )
        self.config = self.app.compose(list(self.command.overrides))

    def prepare(self) -> None:
        self.compose()
        super().prepare()

    def arguments(self, run: str) -> list[str]:
        return [f"data.path={self.text}", f"data.cache_dir={self.cache}", f"hydra.run.dir={run}",
                *SMALL, f"trainer.max_epochs={self.rounds}"]  # fmt: skip

    def expect(self, folder: Path) -> None:
        self.expected = result(folder / "run")

    def verify(self, folder: Path, ended: Ended) -> str:
        from helpers import same

        from charrnn import InputError, checkpoint

        run = folder / "run"
        if ended.code:
            saved = [c for c in ended.calls if c[0] == RENAME and c[2].endswith("last.ckpt")]
            if saved and ended.code == -signal.SIGKILL:
                try:
                    _, windows = checkpoint.find_newest(run)
                except InputError as error:
                    return f"{len(saved)} checkpoints were saved: {error}"
                if windows < self.windows(len(saved)):
                    return f"window {windows} is left after {len(saved)} checkpoints"
            if not run.exists():
                return ""  # a new start, as the whole run was one
            again = run_child(lambda: self.resume(folder), folder, COUNT, 0, 0)
            if problem := again.broken():
                return f"resume: {problem}"
            if again.code:
                return "" if again.code == 2 and not saved else f"resume: {again.out}"
        if not same(result(run), self.expected):
            return f"another run: {ended.out[-300:]}"
        left = leftovers(run)
        return f"left behind: {left}" if left else ""

    def windows(self, saved: int) -> int:
        return saved - 1

    def resume(self, folder: Path) -> None:
        os.chdir(folder)
        train("resume=run", f"trainer.max_epochs={self.rounds}")


class Resume(Train):
    """A run that is resumed at the end of its first round."""

    name = "resume"

    def __init__(self, base: Path, text: Path, cache: Path):
        super().__init__(base, text, cache)
        first = Train(base / "first", text, cache) if (base / "first").mkdir() is None else None
        first.rounds = 1
        first.compose()
        ended = run_child(lambda: first.act(self.template), self.template, COUNT, 0, 0)
        assert ended.code == 0, ended.out

    def act(self, folder: Path) -> None:
        self.resume(folder)

    def compose(self) -> None:
        pass

    def windows(self, saved: int) -> int:
        return 1 + saved


class Sweep(Scenario):
    """Two jobs of two windows."""

    name, weight = "sweep", 0.3

    def act(self, folder: Path) -> None:
        os.chdir(folder)
        train(
            "-m", f"data.path={self.text}", f"data.cache_dir={self.cache}", *SMALL, "seed=1,2",
            "logger=none", "trainer.max_epochs=1", "hydra.sweep.dir=sweep",
            "trainer.num_sanity_val_steps=0",
        )  # fmt: skip

    def results(self, folder: Path) -> dict:
        return {job.name: result(job) for job in sorted(folder.glob("sweep/[0-9]*/"))}

    def expect(self, folder: Path) -> None:
        self.expected = self.results(folder)
        assert len(self.expected) == 2

    def verify(self, folder: Path, ended: Ended) -> str:
        from helpers import same

        if ended.code:
            again = run_child(lambda: self.act(folder), folder, COUNT, 0, 0)
            if problem := again.broken():
                return f"again: {problem}"
            if again.code:
                return f"again: {again.out[-500:]}"
        if not same(self.results(folder), self.expected):
            return f"other jobs: {ended.out[-300:]}"
        file = folder / "sweep" / "results.csv"
        rows = len(file.read_text().splitlines()) if file.exists() else 0
        if rows != 3:
            return f"results.csv has {rows} rows"
        left = leftovers(folder)
        return f"left behind: {left}" if left else ""


class Export(Scenario):
    """A model written as safetensors and as torch's file, over older ones."""

    name, weight = "export", 25.0

    def __init__(self, base: Path, text: Path, cache: Path):
        super().__init__(base, text, cache)
        self.run = base / "train-whole" / "run"
        for ending in ("pt", "safetensors"):
            (self.template / f"model.{ending}").write_bytes(b"old")

    def act(self, folder: Path) -> None:
        from charrnn.cli.main import main

        for kind, ending in (("torch", "pt"), ("safetensors", "safetensors")):
            main(["export", str(self.run), "--to", kind, "--out", str(folder / f"model.{ending}")])

    def expect(self, folder: Path) -> None:
        self.expected = {f.name: f.read_bytes() for f in folder.iterdir()}

    def verify(self, folder: Path, ended: Ended) -> str:
        for name, content in self.expected.items():
            found = (folder / name).read_bytes() if (folder / name).exists() else None
            if found != content and (ended.code == 0 or found != b"old"):
                return f"{name} is torn"
        again = run_child(lambda: self.act(folder), folder, COUNT, 0, 0)
        return "" if again.code == 0 else f"again: {again.out[-500:]}"


class Encode(Scenario):
    """A text encoded into the cache."""

    name, weight = "encode", 25.0

    def act(self, folder: Path) -> None:
        import torch

        from charrnn.cli.errors import one_line_errors
        from charrnn.data.corpus import open_corpus

        with one_line_errors():
            corpus = open_corpus([self.text], cache_dir=folder / "cache")
            print(hashlib.sha256(corpus.tokens.to(torch.int64).numpy().tobytes()).hexdigest())

    def expect(self, folder: Path) -> None:
        self.expected = self.whole.out

    def verify(self, folder: Path, ended: Ended) -> str:
        if ended.code == 0 and ended.out != self.expected:
            return f"another text: {ended.out}"
        again = run_child(lambda: self.act(folder), folder, COUNT, 0, 0)
        return "" if again.out == self.expected else f"again: {again.out[-500:]}"


class Points:
    """Which points are tried, and what became of them.

    Args:
        share: of all points, evenly spread.
        end: the time after which no point begins.
    """

    def __init__(self, share: float, end: float):
        self.share, self.end = share, end
        self.number, self.tallies, self.current = 0, {}, share

    def begin(self, scenario: Scenario) -> None:
        """Take of a scenario its share, or all where all are taken."""
        self.current = 1.0 if self.share >= 1 else min(1.0, self.share * scenario.weight)
        self.number = 0

    def is_taken(self) -> bool:
        """Whether the next point is tried."""
        self.number += 1
        taken = int(self.number * self.current) != int((self.number - 1) * self.current)
        return taken and not self.is_over()

    def is_over(self) -> bool:
        return time.monotonic() > self.end

    def note(self, scenario: Scenario, kind: str, at: int, problem: str) -> None:
        tally = self.tallies.setdefault(f"{scenario.name}: {kind}", Tally())
        tally.tried += 1
        tally.held += not problem
        if problem:
            tally.failures.append(f"call {at}: {problem}")


def try_calls(scenario: Scenario, points: Points) -> None:
    """Fail and kill at every call, or at a share of them."""
    kinds = [(FAIL, error, errno.errorcode[error]) for error in ERRORS]
    kinds += [(KILL_BEFORE, 0, "killed before"), (KILL_AFTER, 0, "killed after")]
    for at in range(1, scenario.whole.count + 1):
        for how, error, name in kinds:
            if points.is_taken():
                folder = scenario.fresh("run")
                ended = run_child(lambda f=folder: scenario.act(f), folder, how, at, error)
                points.note(scenario, name, at, scenario.settle(folder, ended))


def try_power_cuts(scenario: Scenario, points: Points) -> None:
    """Replay every beginning of the log, with what was not flushed lost in several ways."""
    source = scenario.fresh("source")
    disk, killed = Disk(source), Ended(-signal.SIGKILL, "", [], 0)
    whole = f"{scenario.base}/{scenario.name}-whole"
    seen = set()
    for at, call in enumerate(scenario.whole.calls, 1):
        if points.is_over():
            return
        kind, path, other, *rest = call
        disk.apply(kind, path.replace(whole, disk.root), other.replace(whole, disk.root), *rest)
        for how, image in disk.images():
            if how.startswith("cut"):
                how = "cut at a page"
            key = hashlib.sha256(repr(sorted(image.items())).encode()).digest()
            if key in seen or not points.is_taken():
                continue
            seen.add(key)
            folder = scenario.base / f"{scenario.name}-cut"
            shutil.rmtree(folder, ignore_errors=True)
            write_image(image, disk.root, folder)
            folder.mkdir(exist_ok=True)
            points.note(scenario, how, at, scenario.settle(folder, killed))


def main() -> None:
    import zygote

    for name in (*zygote.IMPORTED, "charrnn.export.torch", "charrnn.export.safetensors"):
        importlib.import_module(name)
    import torch
    from helpers import TEXT

    torch.set_num_threads(1)
    base, share = Path(sys.argv[1]).resolve(), float(sys.argv[2])
    points = Points(share, time.monotonic() + 60 * float((sys.argv[3:] or ["inf"])[0]))
    text, cache = base / "text.txt", base / "cache"
    text.write_text(TEXT[:1000], "utf-8")
    os.environ["XDG_CACHE_HOME"] = str(cache)
    with redirect_stdout(io.StringIO()):
        importlib.import_module("charrnn.cli.main").main(["train", "--cfg", "job"])
    scenarios = []
    for kind in (Train, Resume, Encode, Export, Sweep):
        scenarios.append(kind(base, text, cache))
        scenarios[-1].prepare()
    gc.freeze()  # so that children do not copy what they only look at
    for scenario in scenarios:
        points.begin(scenario)
        try_calls(scenario, points)
        try_power_cuts(scenario, points)
        seconds = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        tried = sum(tally.tried for tally in points.tallies.values())
        line = f"{scenario.name}: {scenario.whole.count} calls; {tried} points until here"
        print(f"{line}, {seconds:.0f} s of their processes", file=sys.stderr, flush=True)
    json.dump({name: vars(tally) for name, tally in points.tallies.items()}, sys.stdout)


if __name__ == "__main__":
    main()
