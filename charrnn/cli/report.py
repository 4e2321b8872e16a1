"""charrnn report: a run on one page, with samples and curves along its training."""

from pathlib import Path

from charrnn.cli.options import Parser
from charrnn.data.files import user_path
from charrnn.errors import escape_control


def main(arguments: list[str], program: str) -> None:
    """Write report.html into the run's folder, and print its path."""
    parser = Parser(program, "Write the page of a run, also while it trains.")
    parser.add_argument("run", help="the run's folder")
    folder = user_path(parser.parse(arguments).run)
    from charrnn.runs import write_report

    print(escape_control(str(write_report(folder))))


def report_run(settings, folder: Path) -> Path | None:
    """Write the page of a run that ended, as ``callbacks.report`` says; return its file, or None.

    What a full disk does not take is reported in a line.

    Args:
        settings: of the run.
    """
    from charrnn.runs import write_report
    from charrnn.training.distributed import is_rank_zero

    callback = settings.callbacks.get("report")
    ours = callback and callback.get("_target_") == "charrnn.callbacks.Report"
    if not (ours and is_rank_zero() and (folder / "metrics.csv").is_file()):
        return None
    try:
        return write_report(
            folder, **{k: callback[k] for k in ("points", "samples") if k in callback}
        )
    except OSError as error:
        print(escape_control(f"{folder / 'report.html'}: cannot be written ({error.strerror})"))
        return None
