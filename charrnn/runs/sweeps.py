"""Sweeps: the folders of their jobs, and what came of them: python -m charrnn.runs.sweeps FOLDER.

A job's folder has, beside a run's files, ``.hydra/job.json``: its overrides and what became of it.
Who trains in it holds a lock on ``.hydra/lock``, which the system lets go however it ends.
"""

import contextlib
import csv
import json
import math
import os
import re
import shlex
import statistics
import sys
import time
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from charrnn.checkpoint.files import atomic_write
from charrnn.errors import InputError, escape_control

NOT_SETTINGS = ("launcher", "sweep")
"""Groups that say how jobs are started; a job is the same whatever started it."""
DONE = ("finished", "stopped")
TRAIN = Path(__file__).resolve().parents[2] / "train.py"
held: list[typing.IO] = []
"""The locks of this process, for those that it starts to hold them too."""


@dataclass
class Job:
    """A job as its folder tells it."""

    folder: Path
    overrides: dict[str, str]
    state: str
    """finished, stopped (as clearly worse), running, half done or failed."""
    reason: str
    curve: list[tuple[int, float]]
    """Windows and validation bpc, the untrained model first."""
    speed: float | None
    """Characters a second, the median."""
    parameters: int | None
    number: int
    given: list[str]
    """The overrides as they were given."""

    @property
    def trained(self) -> list[tuple[int, float]]:
        """The curve without the untrained model."""
        return [point for point in self.curve if point[0] > 0]

    @property
    def best(self) -> float:
        return min((bpc for _, bpc in self.trained), default=math.nan)

    @property
    def last(self) -> float:
        return self.trained[-1][1] if self.trained else math.nan

    @property
    def command(self) -> str:
        """What runs it alone, from here."""
        script = TRAIN.relative_to(Path.cwd()) if TRAIN.is_relative_to(Path.cwd()) else TRAIN
        # A sweep's file has more than the search: what all its jobs have. A preset may be one.
        files = ("sweep=", "experiment=")
        alone = ["hydra.mode=RUN"] if any(o.startswith(files) for o in self.given) else []
        return shlex.join(["python", str(script), *self.given, *alone])


def folder_name(sweep: Path, number: int, overrides: list[str], fixed: list[str]) -> str:
    """The name of a job's folder: that of the job with the same overrides, or a new one.

    New names have the job's number (or the next that is free) and the keys that are not fixed.
    """
    name, wanted = label(overrides, fixed), identity(overrides)
    taken = {}
    for folder in sorted(sweep.glob("[0-9]*/")):
        recorded = record_of(folder).get("overrides")
        if recorded is not None and identity(recorded) == wanted:
            return folder.name
        if recorded is not None:
            taken[int(re.match(r"\d+", folder.name)[0])] = folder.name
    if number in taken:
        number = max(taken) + 1
    return f"{number}_{name}" if name else str(number)


def identity(overrides: list[str]) -> list[str]:
    """What makes a job that job."""
    pairs = split(overrides)
    return sorted(f"{k}={v}" for k, v in pairs.items() if k not in NOT_SETTINGS)


def split(overrides: list[str]) -> dict[str, str]:
    """Keys and values as they were given."""
    return {o.lstrip("+").partition("=")[0]: o.partition("=")[2] for o in overrides}


def label(overrides: list[str], fixed: list[str]) -> str:
    """What differs, as a short and safe file name: model=gru_resize,lr=0.002."""
    pairs = varied(overrides, fixed)
    parts = []
    for key, value in pairs.items():
        last = key.rpartition(".")[2]
        alone = sum(k.rpartition(".")[2] == last for k in pairs) == 1
        safe = re.sub(r"[^\w.+-]+", "-", short(value))[:40]
        parts.append(f"{last if alone else key}={safe}")
    return ",".join(parts)[:160]


def short(value: str | int | float) -> str:
    """A value in few characters: 0.0017826497151386949 is 0.001783."""
    text = str(value)
    with contextlib.suppress(ValueError):
        text = f"{float(text):.4g}" if len(text) > 6 else text
    return text


def varied(overrides: list[str], fixed: list[str]) -> dict[str, str | int | float]:
    """The overrides of a job that are not the same in all, with numbers as numbers."""
    left_out = (*fixed, *NOT_SETTINGS)
    pairs = {k: bare(v) for k, v in split(overrides).items() if k not in left_out}
    for key, value in pairs.items():
        with contextlib.suppress(ValueError):
            pairs[key] = float(value)
        with contextlib.suppress(ValueError):
            pairs[key] = int(value)
    return pairs


def bare(value: str) -> str:
    """A value without the quotes and backslashes that Hydra's grammar needs; '' stays."""
    quote = value[:1]
    if len(value) > 2 and quote in ("'", '"') and value.endswith(quote):
        return value[1:-1].replace(f"\\{quote}", quote)
    return re.sub(r"\\([^\w'\"])", r"\1", value)


def record_of(run: Path) -> dict:
    """What ``.hydra/job.json`` says; nothing where there is none, or it is damaged."""
    try:
        content = json.loads((run / ".hydra" / "job.json").read_text("utf-8"))
        kinds = {"overrides": list, "state": str, "reason": str}
        whole = all(isinstance(content[key], kind) for key, kind in kinds.items())
        return content if whole and are_texts(content["overrides"]) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def are_texts(values: object) -> bool:
    """Whether it is a list of texts."""
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def record(run: Path, overrides: list[str], state: str, reason: str = "") -> None:
    """Write ``.hydra/job.json``, whole or not at all; the overrides that it has stay in it."""
    if is_follower():
        return
    file = run / ".hydra" / "job.json"
    file.parent.mkdir(exist_ok=True)
    content = {"overrides": list(overrides)} | record_of(run) | {"state": state, "reason": reason}
    with atomic_write(file, "w") as f:
        f.write(json.dumps(content, indent=1))


def is_follower() -> bool:
    """Whether this is one of a run's processes, but not the first."""
    return any(os.environ.get(n, "0") != "0" for n in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


@contextlib.contextmanager
def alone(run: Path, patience: float = 1.0) -> Iterator[bool]:
    """Hold a run's folder; False where another process has it (for longer than a look takes).

    The system lets it go when the process ends, however it ends. Where a system or a file system
    has no locks, nobody is refused.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        fcntl = None
    if fcntl is None or is_follower():
        yield True
        return
    lock = run / ".hydra" / "lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "w") as file:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    yield False
                    return
                time.sleep(0.02)
            except OSError:
                break
        held.append(file)
        try:
            yield True
        finally:
            held.remove(file)


def is_running(run: Path) -> bool:
    """Whether a process holds a run's lock."""
    import fcntl

    try:
        with open(run / ".hydra" / "lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def read(sweep: Path) -> list[Job]:
    """Every job below a folder, the best validation first. Raises InputError where none is."""
    runs = sorted(path.parent for path in sweep.glob("*/.hydra/"))
    runs = runs or sorted(path.parent for path in sweep.glob("*/*/.hydra/"))
    if not runs:
        raise InputError(f"{sweep}: no runs there; give the folder of a sweep")
    jobs = [read_job(run, number) for number, run in enumerate(runs)]
    return sorted(jobs, key=lambda job: (math.isnan(job.best), job.best, job.number))


def read_job(run: Path, number: int) -> Job:
    """A job from its folder, at any moment of its life."""
    recorded = record_of(run)
    overrides = recorded.get("overrides")
    if overrides is None:
        overrides = plain_yaml(run / ".hydra" / "overrides.yaml")
        overrides = overrides if are_texts(overrides) else []
    state = recorded.get("state", "half done")
    if state not in DONE and is_running(run):
        state = "running"
    elif state == "running":
        state = "half done"
    curve, speeds = [], []
    for row in rows(run / "metrics.csv"):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if row["val/bpc"]:
                curve.append((int(row["step"]), float(row["val/bpc"])))
            if row["train/chars_per_second"]:
                speeds.append(float(row["train/chars_per_second"]))
    found = re.match(r"\d+", run.name)
    about = plain_yaml(run / ".hydra" / "about.yaml")
    parameters = about.get("parameters") if isinstance(about, dict) else None
    return Job(
        folder=run,
        overrides={k: bare(v) for k, v in split(overrides).items() if k not in NOT_SETTINGS},
        state=state,
        reason=recorded.get("reason", ""),
        curve=curve,
        speed=statistics.median(speeds) if speeds else None,
        parameters=parameters if isinstance(parameters, int) else None,
        number=int(found[0]) if found else number,
        given=[o for o in overrides if o.partition("=")[0] != "launcher"],
    )


def finished_curves(sweep: Path, windows: int) -> list[list[float]]:
    """The validation bpc of each finished job of a sweep up to a window."""
    runs = sorted(f.parent.parent for f in sweep.glob("*/.hydra/job.json"))
    finished = [run for run in runs if record_of(run).get("state") == "finished"]
    curves = ([b for at, b in read_job(run, 0).trained if at <= windows] for run in finished)
    return [curve for curve in curves if curve]


def plain_yaml(file: Path):
    """What a file holds, None where there is none or it is damaged."""
    try:
        return yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def rows(file: Path) -> list[dict]:
    """The rows of a CSV file; none where there is no file, or it is damaged."""
    try:
        with open(file, newline="") as f:
            return list(csv.DictReader(f))
    except (OSError, ValueError, csv.Error):
        return []


def swept(jobs: list[Job]) -> list[str]:
    """The keys in which jobs differ, in the order of the command line."""
    keys = dict.fromkeys(key for job in sorted(jobs, key=by_number) for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def by_number(job: Job) -> int:
    """The order in which jobs were started."""
    return job.number


def table(jobs: list[Job]) -> list[list[str]]:
    """The head and a row for each job, as text."""
    keys = swept(jobs)
    head = ["job", *keys, "best bpc", "last bpc", "characters/s", "parameters", "state"]
    body = []
    for job in jobs:
        numbers = [f"{v:.4f}" if v == v else "" for v in (job.best, job.last)]
        sizes = [f"{v:,.0f}" if v else "" for v in (job.speed, job.parameters)]
        values = [short(job.overrides.get(key, "")) for key in keys]
        body.append([str(job.number), *values, *numbers, *sizes, job.state])
    return [head, *body]


def write(sweep: Path, jobs: list[Job]) -> None:
    """results.csv, with full numbers, and results.html, each whole or not at all.

    Raises InputError, naming the file, where it cannot be written.
    """
    from charrnn.runs import page as results

    keys = swept(jobs)
    head = ["job", "folder", *keys, "best_bpc", "last_bpc", "windows", "characters_per_second"]
    lines = [[*head, "parameters", "state", "reason"]]
    for job in jobs:
        numbers = [v if v == v else "" for v in (job.best, job.last)]
        windows = job.curve[-1][0] if job.curve else ""
        values = [job.overrides.get(key, "") for key in keys]
        line = [job.number, job.folder.relative_to(sweep), *values, *numbers, windows]
        lines.append([*line, job.speed, job.parameters, job.state, job.reason])
    for name in ("results.csv", "results.html"):
        try:
            with atomic_write(sweep / name, "w", newline="", errors="replace") as f:
                if name.endswith("csv"):
                    csv.writer(f).writerows(lines)
                else:
                    f.write(results.page(sweep.resolve().name, jobs, swept(jobs), table(jobs)))
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            raise InputError(f"{sweep / name}: {reason}") from error


def report(sweep: Path) -> list[Job]:
    """Print the table, name what failed, and write the files; returns the jobs.

    Raises InputError, after the table, where a file cannot be written.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    jobs = read(sweep)
    head, *body = table(jobs)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(head):
        numeric = i == 0 or len(head) - 6 < i < len(head) - 1
        shown.add_column(
            Text(escape_control(name)), justify="right" if numeric else "left", overflow="fold"
        )
    for line in body:
        shown.add_row(*(Text(escape_control(cell)) for cell in line))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(shown)
    failed = sorted((job for job in jobs if job.state == "failed"), key=by_number)
    if failed:
        print(f"{len(failed)} of {len(jobs)} jobs failed:")
    for job in failed:
        print(escape_control(f"  {job.folder.name}: {job.reason}\n    {job.command}"))
    write(sweep, jobs)
    near = sweep.relative_to(Path.cwd()) if sweep.is_relative_to(Path.cwd()) else sweep
    print(escape_control(f"results          {near / 'results.html'} (and results.csv)"))
    print(escape_control(f"curves           tensorboard --logdir {shlex.quote(str(near))}"))
    return jobs


def main() -> None:
    """The answer of a sweep, also while it runs."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(
            "usage: python -m charrnn.runs.sweeps FOLDER\n\nTable and pages of a sweep's results."
        )
        sys.exit(0 if {"-h", "--help"} & set(sys.argv) else 2)
    try:
        report(Path(sys.argv[1]))
    except InputError as error:
        print(f"error: {escape_control(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
