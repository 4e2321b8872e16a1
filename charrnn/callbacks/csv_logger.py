"""Private names of Lightning's CSVLogger, which deletes the file of the run that it goes on with.

No other file of this room touches them. tests/callbacks/test_csv_logger.py fails when Lightning
changes them.
"""

import csv
import warnings
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger

from charrnn.callbacks.metrics_csv import write_rows


def rewind_csv_logger(logger: CSVLogger, windows: int) -> None:
    """Open a logger such that the rows of its file up to a window stay.

    Args:
        windows: the last window that stays; -1 keeps none.
    """
    file = Path(logger.log_dir) / "metrics.csv"
    kept = file.with_name(".metrics.csv.kept")
    if not kept.exists():
        if not file.exists():
            return
        file.replace(kept)  # out of the logger's sight; here too after a kill
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory .* exists")
        writer = logger.experiment
    with open(kept, newline="") as f:
        reader = csv.DictReader(f)
        rows = [r for r in reader if (r.get("step") or "").isdigit() and int(r["step"]) <= windows]
    columns = list(reader.fieldnames or ())
    whole = [row for row in rows if None not in row.values() and None not in row]
    if whole:
        write_rows(file, columns, whole)
        writer.metrics_keys = columns
    kept.unlink()
