"""charrnn neurons: a page of what each unit of a model does along a text."""

from charrnn.cli.options import Parser
from charrnn.errors import escape_control


def main(arguments: list[str], program: str) -> None:
    """Write the page, and print its path."""
    parser = Parser(program, "Show what each unit of a model does along a text, as an HTML page.")
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("--text", required=True, help="the text to read (UTF-8)")
    parser.add_argument("-o", "--out", help="the page to write; beside the checkpoint by default")
    parser.add_argument("--length", type=int, default=10_000, help="characters to read (10,000)")
    parser.add_argument("--with", dest="other", help="a second checkpoint, side by side")
    given = parser.parse(arguments)
    from charrnn.analysis.page import write_page

    page = write_page(
        given.checkpoint, given.text, given.out, given.length, given.allow_targets, given.other
    )
    print(escape_control(str(page)))
