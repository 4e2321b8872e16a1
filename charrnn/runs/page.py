"""results.html: a sweep on one page: its jobs as a table, curves, and pictures of its keys.

The page needs no network; see ``results.html`` and ``results.js`` beside this file.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from charrnn.analysis.template import fill_page
from charrnn.errors import escape_control
from charrnn.runs.groups import Group
from charrnn.runs.names import short_names
from charrnn.runs.run_report import FOLDER, UPLOT, rounded, thin, uplot_style
from charrnn.runs.sweep import Job

POINTS = 200
"""Of a learning curve, at most."""


def results_page(
    name: str,
    jobs: list[Job],
    keys: list[str],
    groups: Sequence[Group] = (),
    importances: dict[str, float] | None = None,
    sweep: Path | None = None,
) -> str:
    """Return the whole page as HTML.

    Args:
        name: of the sweep.
        jobs: sorted, the best first.
        keys: in which the jobs differ.
        groups: of jobs that differ in nothing but their seed, if there are any.
        importances: of the keys of a search, the largest first.
        sweep: the folder of the page, for links to the runs' reports; None without links.
    """
    data = {
        "name": escape_control(name),
        "keys": [{"name": key, "short": short} for key, short in zip(keys, short_names(keys))],
        "jobs": [job_data(job, keys, sweep) for job in jobs],
        "groups": [group_data(group, keys) for group in groups],
        "importances": [[key, round(share, 4)] for key, share in (importances or {}).items()],
    }
    scripts = (UPLOT, *(FOLDER / f"{name}.js" for name in ("charts", "results", "keys")))
    return fill_page(FOLDER / "results.html", data["name"], scripts, style=uplot_style(), data=data)


def job_data(job: Job, keys: list[str], sweep: Path | None) -> dict:
    """Return what the page shows of a job, in plain containers; None stands for NaN."""
    curve = thin(job.trained, POINTS)
    report = job.folder / "report.html"
    link = None
    if sweep is not None and report.is_file():
        link = quote(report.relative_to(sweep).as_posix())
    return {
        "number": job.number,
        "folder": escape_control(job.folder.name),
        "values": [value_data(job.overrides.get(key)) for key in keys],
        "best": finite(job.best),
        "last": finite(job.last),
        "speed": finite(job.speed),
        "parameters": job.parameters,
        "state": job.state,
        "reason": escape_control(job.reason),
        "curve": [[window for window, _ in curve], [rounded(bpc) for _, bpc in curve]],
        "link": link,
    }


def group_data(group: Group, keys: list[str]) -> dict:
    """Return what the page shows of a group, in plain containers."""
    return {
        "values": [value_data(group.overrides.get(key)) for key in keys if key != "seed"],
        "best": [rounded(bpc) for bpc in group.best.values()],
        **{name: finite(getattr(group, name)) for name in ("mean", "sd", "difference", "error")},
    }


def value_data(text: str | None) -> float | str | None:
    """Return a value of the command line as a number where it is a finite one, else as text."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return escape_control(text)
    return value if math.isfinite(value) else escape_control(text)


def finite(value: float | None) -> float | None:
    """Return a number with seven significant digits; None for NaN, infinity and None."""
    return None if value is None or not math.isfinite(value) else rounded(value, 7)
