"""report.html: a run on one page: samples along the training, curves, settings, what to do next."""

import json
import math
from pathlib import Path

from charrnn.analysis.template import fill_page
from charrnn.callbacks.samples_file import read_samples
from charrnn.checkpoint.files import atomic_write
from charrnn.data.files import shell_path
from charrnn.errors import InputError, escape_control, shell_quote
from charrnn.runs.records import DONE
from charrnn.runs.sweep import Job, read_csv, read_job, read_yaml

FOLDER = Path(__file__).parent
UPLOT = FOLDER / "vendor" / "uPlot.iife.min.js"
"""uPlot 1.6.32, MIT: the npm package's own files, unchanged."""
CURVES = ("train/bpc", "val/bpc", "train/lr", "train/grad_norm", "train/chars_per_second")
LONGEST = 2_000
"""Characters of a sample on the page."""
ROOM = 120_000
"""Bytes of all samples on the page, which stays below 300 KB."""
MACHINE = ("machine", "cores", "threads", "python", "torch", "charrnn", "commit", "started")
HIDDEN = ("_target_", "hydra")
COMMANDS = {
    "sample from it": "{sample} checkpoint={run}",
    "how good is it": "{evaluate} checkpoint={run}",
    "go on": "{train} resume={run} {limit}",
    "a page to send": "{tools} export {run} --to html",
    "what its units do": "{tools} neurons {run} --text FILE",
}
PROGRAM = {name: f"charrnn {name}" for name in ("train", "sample", "evaluate")}
PROGRAM["tools"] = "charrnn"
"""How the user starts each command, and those that have no name of their own."""
WITH_PAGE = ("charrnn.models.GRUEncode", "charrnn.models.GRUResize")
"""Models that ``charrnn export --to html`` writes."""


def write_report(
    run: Path, points: int = 1000, samples: int = 60, program: dict[str, str] = PROGRAM
) -> Path:
    """Write the page of a run, also while it trains, and return its file.

    Args:
        run: the run's folder.
        points: of each curve, at most.
        samples: at most.
        program: how the user starts the commands on the page, as ``PROGRAM``.

    Raises:
        InputError: the folder is not that of a run.
        OSError: the page cannot be written.
    """
    if not (run / "metrics.csv").is_file():
        raise InputError(f"{run}: no run there; give the folder of one, with its metrics.csv")
    page = report_page(run, points, samples, program)
    with atomic_write(run / "report.html", "w", errors="replace") as f:
        f.write(page)
    return run / "report.html"


def report_page(run: Path, points: int, samples: int, program: dict[str, str]) -> str:
    """Return the page as HTML."""
    job = read_job(run)
    about = read_yaml(run / ".hydra" / "about.yaml")
    about = about if isinstance(about, dict) else {}
    config = read_yaml(run / ".hydra" / "config.yaml")
    config = config if isinstance(config, dict) else {}
    rows = read_csv(run / "metrics.csv")
    data = {
        "name": escape_control(run.resolve().name),
        "state": job.state,
        "reason": escape_control(job.reason),
        "facts": facts(job, about, rows),
        "curves": curves(rows, points),
        "samples": thinned_samples(read_samples(run), samples),
        "settings": [[key, escape_control(str(value))] for key, value in flat(config)],
        "machine": machine(about),
        "commands": commands(run, config, program, job.state in DONE),
    }  # fmt: skip
    title = f"{data['name']}: a run of charrnn"
    scripts = (UPLOT, FOLDER / "charts.js", FOLDER / "report.js")
    return fill_page(FOLDER / "report.html", title, scripts, style=uplot_style(), data=data)


def uplot_style() -> str:
    """Return uPlot's style sheet after its license, which goes with every copy."""
    license, css = (
        UPLOT.with_name(name).read_text("utf-8") for name in ("uPlot.LICENSE", "uPlot.min.css")
    )
    return f"/*! uPlot\n{license}\n*/\n{css}"


def facts(job: Job, about: dict, rows: list[dict]) -> list[list[str]]:
    """Return what the run came to, as pairs of a name and a value."""
    best = min(job.trained, key=lambda point: point[1], default=None)
    untrained = next((bpc for window, bpc in job.curve if window == 0), None)
    windows = max((number(row.get("step")) or 0 for row in rows), default=0)
    passes = max((number(row.get("train/passes")) or 0 for row in rows), default=0)
    characters = corpus_of(about).get("characters")
    found = {
        "best validation": best and f"{best[1]:.4f} bpc",
        "at window": best and f"{best[0]:,}",
        "last validation": f"{job.last:.4f} bpc" if job.last == job.last else None,
        "untrained": untrained and f"{untrained:.4f} bpc",
        "windows": f"{windows:,.0f}",
        "passes": passes and f"{passes:.2f}",
        "parameters": job.parameters and f"{job.parameters:,}",
        "characters a second": job.speed and f"{job.speed:,.0f}",
        "corpus": isinstance(characters, int) and f"{characters:,} characters",
    }
    return [[name, value] for name, value in found.items() if value]


def machine(about: dict) -> list[list[str]]:
    """Return what the run was made of and on, as pairs of a name and a value."""
    found = {key: about[key] for key in MACHINE if about.get(key) is not None}
    if digest := corpus_of(about).get("sha256"):
        found["text, SHA-256"] = digest
    return [[key, escape_control(str(value))] for key, value in found.items()]


def corpus_of(about: dict) -> dict:
    """Return what is known of the text; an empty dictionary where nothing is."""
    return about["corpus"] if isinstance(about.get("corpus"), dict) else {}


def curves(rows: list[dict], points: int) -> dict[str, list]:
    """Return the columns of metrics.csv that have numbers, each as windows and values."""
    found = {}
    for name in CURVES:
        pairs = [(number(row.get("step")), number(row.get(name))) for row in rows]
        pairs = [(x, y) for x, y in pairs if x is not None and y is not None]
        kept = thin(pairs, points)
        if kept:
            found[name] = [[int(x) for x, _ in kept], [rounded(y) for _, y in kept]]
    return found


def number(text: str | None) -> float | None:
    """Parse a number; None where there is none, or it is not finite."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def rounded(value: float, digits: int = 5) -> float:
    """Return a number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def thin(values: list, count: int) -> list:
    """Return at most ``count`` values, evenly spaced, the first and the last among them."""
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def thinned_samples(samples: list[dict], count: int) -> list[dict]:
    """Return as many samples, at most ``count``, as there is room for."""
    samples = [sample | {"text": sample["text"][:LONGEST]} for sample in samples]
    while len(json.dumps(kept := thin(samples, count))) > ROOM and count > 2:
        count = max(2, count * 3 // 4)
    return kept


def flat(settings: dict, prefix: str = ""):
    """Yield the keys of settings, dotted, and their values."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif key not in HIDDEN:
            yield f"{prefix}{key}", "null" if value is None else value


def longer(config: dict) -> str:
    """Return the setting with which the run, resumed, goes on for as long again."""
    for key in ("task.max_characters", "trainer.max_steps", "trainer.max_epochs"):
        group, _, name = key.partition(".")
        value = config[group].get(name) if isinstance(config.get(group), dict) else None
        if isinstance(value, int) and value > 0:
            return f"{key}={2 * value}"
    return "trainer.max_epochs=12"


def commands(
    run: Path, config: dict, program: dict[str, str] = PROGRAM, is_done: bool = True
) -> list[list[str]]:
    """Return commands to go on with the run, those that its model supports.

    A run that is not done goes on to its own end.
    """
    name = shell_path(run.resolve())
    model = config.get("model") if isinstance(config.get("model"), dict) else {}
    has_page = model.get("_target_") in WITH_PAGE
    allowed = config.get("allow_targets")
    allowed = ",".join(map(str, allowed)) if isinstance(allowed, list) else ""
    after = " " + shell_quote(f"allow_targets=[{allowed}]") if allowed else ""
    limit = longer(config) if is_done else ""
    return [
        [what, escape_control(line.format(run=name, limit=limit, **program).rstrip() + after)]
        for what, line in COMMANDS.items()
        if has_page or "--to html" not in line
    ]
