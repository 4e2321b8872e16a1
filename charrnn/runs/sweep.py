"""The jobs of a sweep, read from their folders at any moment of their lives."""

import contextlib
import csv
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

import yaml

from charrnn.errors import InputError, shell_command
from charrnn.runs.lock import is_running
from charrnn.runs.names import NOT_SETTINGS, split_overrides, unquote
from charrnn.runs.records import DONE, is_list_of_strings, read_record

CHARACTERS = "val/characters"
"""Column of metrics.csv where the validation text changed within a run."""


@dataclass(frozen=True)
class Job:
    """A job as read from its folder."""

    folder: Path
    overrides: dict[str, str]
    state: str
    """finished, stopped (as clearly worse), running, interrupted or failed."""
    reason: str
    """Why it stopped or failed, in one line."""
    curve: list[tuple[int, float]]
    """Windows and validation bpc; the untrained model has 0 windows."""
    speed: float | None
    """Median of characters per second."""
    parameters: int | None
    number: int
    given: list[str]
    """The overrides as given on the command line."""
    started: str = ""
    """When, in ISO 8601; empty if it is not known."""

    @property
    def trained(self) -> list[tuple[int, float]]:
        """The finite points of the curve, without the untrained model."""
        return [(window, bpc) for window, bpc in self.curve if window > 0 and math.isfinite(bpc)]

    @property
    def best(self) -> float:
        """The lowest validation bpc; NaN if there is none."""
        return min((bpc for _, bpc in self.trained), default=math.nan)

    @property
    def last(self) -> float:
        """The last validation bpc; NaN if there is none."""
        return self.trained[-1][1] if self.trained else math.nan

    def command(self, program: str = "python train.py") -> str:
        """Return the shell command that runs this job as a single run.

        Args:
            program: the command without its arguments, quoted for a shell.
        """
        # Presets can make a run a sweep; the job keeps their other settings.
        presets = ("sweep=", "experiment=")
        single = ["hydra.mode=RUN"] if any(o.startswith(presets) for o in self.given) else []
        return f"{program} {shell_command([*self.given, *single])}"


def read_jobs(sweep: Path) -> list[Job]:
    """Read all jobs of a sweep, sorted by their best validation.

    Raises:
        InputError: the folder holds no jobs.
    """
    runs = sorted(path.parent for path in sweep.glob("*/.hydra/"))
    runs = runs or sorted(path.parent for path in sweep.glob("*/*/.hydra/"))
    if not runs:
        raise InputError(f"{sweep}: no runs there; give the folder of a sweep")
    jobs = [read_job(run, number) for number, run in enumerate(runs)]
    return sorted(jobs, key=lambda job: (math.isnan(job.best), job.best, job.number))


def read_job(run: Path, number: int = 0) -> Job:
    """Read a job from its folder; damaged files count as missing.

    Args:
        run: the job's folder.
        number: the job's number if the folder's name does not begin with one.
    """
    record = read_record(run)
    overrides = record.get("overrides")
    if overrides is None:
        overrides = read_yaml(run / ".hydra" / "overrides.yaml")
        overrides = overrides if is_list_of_strings(overrides) else []
    state = record.get("state", "interrupted")
    if state not in DONE and is_running(run):
        state = "running"
    elif state == "running":
        state = "interrupted"
    curve, speeds, text = [], [], None
    for row in read_csv(run / "metrics.csv"):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if row["val/bpc"]:
                if row.get(CHARACTERS) != text:  # over another text: not to be compared
                    curve, text = [], row.get(CHARACTERS)
                curve.append((int(row["step"]), float(row["val/bpc"])))
            if row["train/chars_per_second"]:
                speeds.append(float(row["train/chars_per_second"]))
    digits = re.match(r"\d+", run.name)
    about = read_yaml(run / ".hydra" / "about.yaml")
    about = about if isinstance(about, dict) else {}
    parameters, started = about.get("parameters"), about.get("started")
    pairs = split_overrides(overrides)
    return Job(
        folder=run,
        overrides={k: unquote(v) for k, v in pairs.items() if k not in NOT_SETTINGS},
        state=state,
        reason=record.get("reason", ""),
        curve=curve,
        speed=statistics.median(speeds) if speeds else None,
        parameters=parameters if isinstance(parameters, int) else None,
        number=int(digits[0]) if digits else number,
        given=[o for o in overrides if o.partition("=")[0] != "launcher"],
        started=started if isinstance(started, str) else "",
    )


def varied_keys(jobs: list[Job]) -> list[str]:
    """Return the keys in which jobs differ, in the order of the command line."""
    in_order = sorted(jobs, key=job_number)
    keys = dict.fromkeys(key for job in in_order for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def job_number(job: Job) -> int:
    """Sort key for the order in which jobs were started."""
    return job.number


def read_yaml(file: Path):
    """Parse a file; None if it is missing or damaged."""
    try:
        return yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def read_csv(file: Path) -> list[dict]:
    """The rows of a CSV file; none if it is missing or damaged."""
    try:
        with open(file, newline="") as f:
            return list(csv.DictReader(f))
    except (OSError, ValueError, csv.Error):
        return []
