"""Lightning's CSVLogger goes on with its file, in place of deleting it."""

import csv

import pytest
from pytorch_lightning.loggers import CSVLogger

from charrnn.callbacks.csv_logger import rewind_csv_logger


def log(logger, *steps):
    for step in steps:
        logger.log_metrics({"loss": float(step)}, step)
    logger.save()


def steps(folder):
    with open(folder / "a" / "b" / "metrics.csv", newline="") as f:
        return [row["step"] for row in csv.DictReader(f)]


def again(folder):
    return CSVLogger(folder, name="a", version="b")


@pytest.mark.parametrize("killed", [False, True])
def test_rows_up_to_a_window_stay(tmp_path, killed):
    log(again(tmp_path), 0, 5, 10)
    file = tmp_path / "a" / "b" / "metrics.csv"
    if killed:  # while it rewound
        file.replace(file.with_name(".metrics.csv.kept"))
    logger = again(tmp_path)
    rewind_csv_logger(logger, 5)
    logger.log_metrics({"loss": 1.0, "new": 2.0}, 7)
    logger.save()
    assert steps(tmp_path) == ["0", "5", "7"]
    assert [f.name for f in file.parent.iterdir()] == ["metrics.csv"]


def test_nothing_stays_of_a_run_that_begins_again(tmp_path):
    log(again(tmp_path), 0, 5)
    logger = again(tmp_path)
    rewind_csv_logger(logger, -1)
    log(logger, 3)
    assert steps(tmp_path) == ["3"]


def test_a_logger_without_a_file_is_left_unopened(tmp_path):
    rewind_csv_logger(again(tmp_path), 5)
    assert list(tmp_path.iterdir()) == []
