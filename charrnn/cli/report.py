"""charrnn report: a run on one page, with samples and curves along its training."""

import dataclasses
from pathlib import Path

from charrnn.cli.arguments import Program
from charrnn.cli.options import Parser
from charrnn.data.files import user_path
from charrnn.errors import escape_control


def main(arguments: list[str], program: str) -> None:
    """Write report.html into the run's folder, and print its path."""
    parser = Parser(program, "Write the page of a run, also while it trains.")
    parser.add_argument("run", help="the run's folder")
    folder = user_path(parser.parse(arguments).run)
    from charrnn.runs import write_report

    prefix = program.removesuffix(" report")
    names = {f: f"{prefix} {f}" for f in ("train", "sample", "evaluate")} | {"tools": prefix}
    print(escape_control(str(write_report(folder, program=names))))


def report_run(settings, folder: Path, program: Program) -> Path | None:
    """Write the page of a run that ended, as ``callbacks.report`` says; return its file, or None.

    What a full disk does not take is reported in a line.

    Args:
        settings: of the run.
        program: how the user started it.
    """
    from charrnn.runs import write_report
    from charrnn.training.distributed import is_rank_zero

    if not (is_rank_zero() and (folder / "metrics.csv").is_file()):  # nothing was trained
        return None
    callback = settings.callbacks.get("report")
    if not (callback and callback.get("_target_") == "charrnn.callbacks.Report"):
        return None
    try:
        given = {k: callback[k] for k in ("points", "samples") if k in callback}
        return write_report(folder, program=dataclasses.asdict(program), **given)
    except OSError as error:
        print(escape_control(f"{folder / 'report.html'}: cannot be written ({error.strerror})"))
        return None
