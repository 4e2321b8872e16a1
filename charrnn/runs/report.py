"""The report of a sweep: a table in the terminal, results.csv and results.html."""

import csv
import shlex
import sys
from pathlib import Path

from charrnn.checkpoint.files import atomic_write
from charrnn.errors import InputError, escape_control
from charrnn.runs.names import short_number
from charrnn.runs.search import importances
from charrnn.runs.sweep import Job, job_number, read_jobs, varied_keys


def report_sweep(sweep: Path, program: str = "python train.py") -> list[Job]:
    """Print the table of a sweep and its failed jobs, and write results.csv and results.html.

    Works while the sweep runs, too.

    Args:
        sweep: the folder of the sweep.
        program: the command, quoted for a shell, that runs a failed job again.

    Raises:
        InputError: there are no jobs, or, after the table, a file cannot be written.
    """
    jobs = read_jobs(sweep)
    _print_table(results_table(jobs))
    failed = sorted((job for job in jobs if job.state == "failed"), key=job_number)
    if failed:
        print(f"{len(failed)} of {len(jobs)} jobs failed:")
    for job in failed:
        print(escape_control(f"  {job.folder.name}: {job.reason}\n    {job.command(program)}"))
    write_results(sweep, jobs)
    short = sweep.relative_to(Path.cwd()) if sweep.is_relative_to(Path.cwd()) else sweep
    print(escape_control(f"results          {short / 'results.html'} (and results.csv)"))
    print(escape_control(f"curves           tensorboard --logdir {shlex.quote(str(short))}"))
    return jobs


def results_table(jobs: list[Job]) -> list[list[str]]:
    """Return the table as text: the header, then a row for each job."""
    keys = varied_keys(jobs)
    header = ["job", *keys, "best bpc", "last bpc", "characters/s", "parameters", "state"]
    body = []
    for job in jobs:
        bpc = [f"{v:.4f}" if v == v else "" for v in (job.best, job.last)]
        sizes = [f"{v:,.0f}" if v else "" for v in (job.speed, job.parameters)]
        values = [short_number(job.overrides.get(key, "")) for key in keys]
        body.append([str(job.number), *values, *bpc, *sizes, job.state])
    return [header, *body]


def write_results(sweep: Path, jobs: list[Job]) -> None:
    """Write results.csv, with all digits, and results.html, each atomically.

    Raises:
        InputError: a file cannot be written.
    """
    from charrnn.runs.page import results_page

    html = results_page(
        sweep.resolve().name, jobs, varied_keys(jobs), results_table(jobs), importances(sweep)
    )
    for name in ("results.csv", "results.html"):
        try:
            with atomic_write(sweep / name, "w", newline="", errors="replace") as f:
                if name == "results.csv":
                    csv.writer(f).writerows(_csv_rows(sweep, jobs))
                else:
                    f.write(html)
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            raise InputError(f"{sweep / name}: {reason}") from error


def _csv_rows(sweep: Path, jobs: list[Job]) -> list[list]:
    keys = varied_keys(jobs)
    header = ["job", "folder", *keys, "best_bpc", "last_bpc", "windows", "characters_per_second"]
    rows = [[*header, "parameters", "state", "reason"]]
    for job in jobs:
        bpc = [v if v == v else "" for v in (job.best, job.last)]
        windows = job.curve[-1][0] if job.curve else ""
        values = [job.overrides.get(key, "") for key in keys]
        row = [job.number, job.folder.relative_to(sweep), *values, *bpc, windows]
        rows.append([*row, job.speed, job.parameters, job.state, job.reason])
    return rows


def _print_table(table: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    header, *body = table
    printed = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(header):
        is_numeric = i == 0 or len(header) - 6 < i < len(header) - 1
        printed.add_column(
            Text(escape_control(name)), justify="right" if is_numeric else "left", overflow="fold"
        )
    for row in body:
        printed.add_row(*(Text(escape_control(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(printed)
