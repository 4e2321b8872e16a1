"""Tables for the terminal: columns are left out where there is no room, numbers are never cut."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from charrnn.errors import escape_control

GAP = 2
"""Spaces between two columns."""
NARROWEST = 20
"""Width to which a column of text may be folded."""
NO_TERMINAL = 160
"""Columns where the output is no terminal and ``COLUMNS`` is not set."""


def terminal_width() -> int:
    """Columns of the terminal, or ``COLUMNS``."""
    return shutil.get_terminal_size((NO_TERMINAL, 24)).columns


def fit_columns(
    table: Sequence[Sequence[str]], width: int, optional: Iterable[str], folded: str | None = None
) -> tuple[list[list[str]], list[str]]:
    """Leave out columns until a table fits a width.

    Args:
        table: the header, then the rows.
        width: in characters.
        optional: names of columns that may be left out, the first of them first.
        folded: a column of text that may take several lines, and counts as ``NARROWEST``.

    Returns:
        The table, and the names of what was left out.
    """
    columns, left_out = [list(column) for column in zip(*table)], []
    for name in optional:
        index = next((i for i, column in enumerate(columns) if column[0] == name), None)
        if index is not None and needed_width(columns, folded) > width:
            left_out.append(columns.pop(index)[0])
    return [list(row) for row in zip(*columns)], left_out


def needed_width(columns: Iterable[Sequence[str]], folded: str | None = None) -> int:
    """The width at which columns, each with its name first, are not cut."""
    from rich.cells import cell_len

    widths = [(column[0], max(map(cell_len, column))) for column in columns]
    widths = [min(width, NARROWEST) if name == folded else width for name, width in widths]
    return sum(widths) + GAP * (len(widths) - 1)


def print_table(
    table: list[list[str]],
    numeric: Iterable[str],
    optional: Iterable[str] = (),
    folded: str | None = None,
) -> None:
    """Print a table as wide as the terminal, and a line about what was left out.

    Args:
        numeric: names of columns that are aligned to the right.
        optional, folded: as in :func:`fit_columns`.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = terminal_width()
    escaped = [[escape_control(cell) for cell in row] for row in table]
    (header, *body), left_out = fit_columns(escaped, width, optional, folded)
    printed = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        side = "right" if name in numeric else "left"
        printed.add_column(Text(name), justify=side, overflow="fold", no_wrap=name != folded)
    for row in body:
        printed.add_row(*map(Text, row))
    least = needed_width(list(zip(header, *body)), folded)  # lines that wrap cut no number
    Console(width=max(width, least), highlight=False).print(printed)
    if left_out:
        note = f"no room for {', '.join(left_out)}; results.csv has all"
        print(textwrap.fill(note, max(width, NARROWEST)))
