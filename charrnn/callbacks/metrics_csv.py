"""metrics.csv: buffered rows, one a window, appended whole or not at all."""

import csv
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from charrnn.checkpoint.files import atomic_write

COLUMNS = (
    "train/loss", "train/bpc", "val/loss", "val/bpc", "train/lr", "train/grad_norm",
    "train/clipped", "train/chars_per_second", "train/passes",
)  # fmt: skip
HEADER = ("step", *COLUMNS)


class MetricsFile:
    """Writes rows of numbers by window; the training and validation of a window share a row.

    Args:
        file: the CSV file; :meth:`create` writes its header.
        interval: seconds between two writes by :meth:`add`.
    """

    def __init__(self, file: Path, interval: float = 1.0):
        self.file, self.interval = file, interval
        self.columns = list(HEADER)
        self.row: dict = {}
        self.rows: list[dict] = []  # finished but not written
        self.written = -math.inf

    def create(self) -> None:
        """Write the header of a new file; an existing file stays as it is.

        Raises:
            OSError: it could not be written; the first rows write it.
        """
        if self.file.exists():
            with open(self.file, newline="") as f:
                self.columns = next(csv.reader(f), self.columns)
        else:
            write_rows(self.file, self.columns, [])

    def add(self, numbers: dict[str, float], windows: int) -> None:
        """Add numbers to the row of a window. Writes earlier rows if ``interval`` has passed.

        Raises:
            OSError: the earlier rows could not be written. They are kept, and tried again.
        """
        try:
            if self.row.get("step") != windows:
                self._finish_row()
                if time.perf_counter() - self.written >= self.interval:
                    self._write()
        finally:
            self.row = {"step": windows} | self.row | numbers

    def flush(self) -> None:
        """Finish the current row, write all rows and flush them to disk.

        Raises OSError as :meth:`add` does.
        """
        self._finish_row()
        self._write(to_disk=True)

    def _finish_row(self) -> None:
        self.rows += [self.row] if self.row else []
        self.row = {}

    def _write(self, to_disk: bool = False) -> None:
        if not self.rows:
            return
        self.written = time.perf_counter()
        if not self.file.exists():
            write_rows(self.file, self.columns, [])
        self._add_columns(dict.fromkeys(name for row in self.rows for name in row))
        size = self.file.stat().st_size
        try:
            with open(self.file, "a", newline="") as f:
                csv.DictWriter(f, self.columns).writerows(self.rows)
                if to_disk:
                    f.flush()
                    os.fsync(f.fileno())
        except OSError:
            os.truncate(self.file, size)
            raise
        self.rows = []

    def _add_columns(self, names: Iterable[str]) -> None:
        """Rewrite the file with columns for names that it lacks: those of a user's callback."""
        columns = [*self.columns, *(name for name in names if name not in self.columns)]
        if columns != self.columns:
            with open(self.file, newline="") as f:
                write_rows(self.file, columns, list(csv.DictReader(f)))
            self.columns = columns


def rewind_metrics_csv(file: Path, windows: int) -> None:
    """Remove all rows after a window, and a last row that a kill cut short. Atomic."""
    if not file.exists():
        return
    with open(file, newline="", errors="replace") as f:
        reader = csv.DictReader(line.replace("\0", "") for line in f)
        columns = reader.fieldnames or ()
        rows = [row for row in reader if _is_whole(row) and int(row["step"]) <= windows]
    if "step" not in columns:  # a loss of power left nothing of its first line
        columns, rows = HEADER, []
    write_rows(file, columns, rows)


def write_rows(file: Path, columns: Sequence[str], rows: list[dict]) -> None:
    """Write a file of rows atomically."""
    with atomic_write(file, "w", newline="") as f:
        writer = csv.DictWriter(f, columns)
        writer.writeheader()
        writer.writerows(rows)


def _is_whole(row: dict) -> bool:
    step = row.get("step")
    return None not in row.values() and None not in row and step is not None and step.isdigit()
