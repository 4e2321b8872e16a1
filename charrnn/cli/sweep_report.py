"""charrnn sweep-report: the table of a sweep, its results.csv and its results.html."""

from charrnn.cli.options import Parser
from charrnn.data.files import user_path


def main(arguments: list[str], program: str) -> None:
    """Print the table of a folder of runs, also while they train, and write its files."""
    parser = Parser(program, "Table and pages of a sweep's results, also while it runs.")
    parser.add_argument("folder", help="the folder of a sweep, or of runs")
    folder = user_path(parser.parse_args(arguments).folder)
    from charrnn.runs import report_sweep

    tools = program.removesuffix(" sweep-report")
    report_sweep(folder, f"{tools} train", tools)
