"""The report of a sweep: a table in the terminal, results.csv and results.html."""

import csv
from pathlib import Path

from charrnn.checkpoint.files import atomic_write
from charrnn.data.files import relative_path, shell_path
from charrnn.errors import InputError, escape_control
from charrnn.runs.groups import Group, group_by_seed
from charrnn.runs.names import short_names, short_number
from charrnn.runs.search import importances
from charrnn.runs.sweep import Job, job_number, read_jobs, varied_keys
from charrnn.runs.table import print_table


def report_sweep(sweep: Path, program: str = "charrnn train", tools: str = "charrnn") -> list[Job]:
    """Print the table of a sweep and its failed jobs, and write results.csv and results.html.

    Works while the sweep runs, too. Runs that are no sweep are listed with their dates.

    Args:
        sweep: the folder of the sweep.
        program: the command, quoted for a shell, that runs a failed job again.
        tools: what the names of other commands follow.

    Raises:
        InputError: there are no jobs, or, after the table, a file cannot be written.
    """
    jobs = read_jobs(sweep)
    if (sweep / "multirun.yaml").is_file() or not any(job.started for job in jobs):
        print_sweep(jobs)
    else:
        print_runs(sweep, jobs)
    failed = sorted((job for job in jobs if job.state == "failed"), key=job_number)
    if failed:
        print(f"{len(failed)} of {len(jobs)} jobs failed:")
    for job in failed:
        print(escape_control(f"  {job.folder.name}: {job.reason}\n    {job.command(program)}"))
    write_results(sweep, jobs)
    print(f"results          {relative_path(sweep / 'results.html')} (and results.csv)")
    if any((job.folder / "tensorboard").is_dir() for job in jobs):
        print(f"curves           {tools} tensorboard {shell_path(sweep)}")
    return jobs


def print_sweep(jobs: list[Job]) -> None:
    """Print the table of groups that differ in their seeds, if there are any, and that of jobs."""
    keys = varied_keys(jobs)
    header, *body = results_table(jobs)
    header[1 : 1 + len(keys)] = short_names(keys)
    numeric = ("job", "best bpc", "last bpc", "characters/s", "parameters")
    optional = ["parameters", "characters/s", "last bpc", "state", *reversed(short_names(keys))]
    if groups := group_by_seed(jobs):
        print_table(
            groups_table(groups, short_names(without_seed(keys)), without_seed(keys)),
            ("mean bpc", "sd", "seeds", "difference", "± error"),
            ("± error", "difference", *reversed(short_names(without_seed(keys)))),
        )
        print()
    print_table([header, *body], numeric, optional)


def print_runs(folder: Path, jobs: list[Job]) -> None:
    """Print a list of runs, the newest first: when, where, what was given, and how good it is."""
    varied = varied_keys(jobs)
    rows = []
    for job in sorted(jobs, key=lambda job: job.started, reverse=True):
        given = " ".join(
            f"{name}={short_number(job.overrides[key])}"
            for key, name in zip(varied, short_names(varied))
            if key in job.overrides
        )
        best = f"{job.best:.4f}" if job.best == job.best else ""
        date, where = job.started[:16].replace("T", " "), job.folder.relative_to(folder).as_posix()
        rows.append([date, best, job.state, given, where])
    header = ["started", "best bpc", "state", "what differed", "run"]
    print_table([header, *rows], ("best bpc",), ("state", "started"), folded="what differed")


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


def groups_table(groups: list[Group], names: list[str], keys: list[str]) -> list[list[str]]:
    """Return the table of groups as text: the header, then a row for each.

    Args:
        names: of the columns of ``keys``.
    """
    body = []
    for group in groups:
        values = [short_number(group.overrides.get(key, "")) for key in keys]
        sizes = (group.sd, group.difference, group.error)
        sd, difference, error = (
            f"{v:{sign}.4f}" if v == v else "" for v, sign in zip(sizes, ("", "+", ""))
        )
        body.append([*values, f"{group.mean:.4f}", sd, str(group.count), difference, error])
    return [[*names, "mean bpc", "sd", "seeds", "difference", "± error"], *body]


def without_seed(keys: list[str]) -> list[str]:
    """The keys of a group."""
    return [key for key in keys if key != "seed"]


def write_results(sweep: Path, jobs: list[Job]) -> None:
    """Write results.csv and groups.csv, with all digits, and results.html, each atomically.

    groups.csv has the groups of jobs that differ in nothing but their seed, where there are any.

    Raises:
        InputError: a file cannot be written.
    """
    from charrnn.runs.page import results_page

    keys, groups = varied_keys(jobs), group_by_seed(jobs)
    html = results_page(sweep.resolve().name, jobs, keys, groups, importances(sweep), sweep)
    files = {"results.csv": _csv_rows(sweep, jobs), "results.html": html}
    if groups:
        files["groups.csv"] = _group_rows(groups, without_seed(keys))
    for name, content in files.items():
        try:
            with atomic_write(sweep / name, "w", newline="", errors="replace") as f:
                if name.endswith(".csv"):
                    csv.writer(f).writerows(content)
                else:
                    f.write(content)
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            raise InputError(f"{sweep / name}: {reason}") from error


def _group_rows(groups: list[Group], keys: list[str]) -> list[list]:
    rows = [[*keys, "mean_bpc", "sd_bpc", "seeds", "difference", "standard_error", "pairs"]]
    for group in groups:
        numbers = [group.mean, group.sd, group.count, group.difference, group.error, group.pairs]
        values = [group.overrides.get(key, "") for key in keys]
        rows.append([*values, *("" if v != v else v for v in numbers)])
    return rows


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
