"""metrics.csv: one row a window, whole rows or none, and rewinding."""

import csv

import pytest

from charrnn.callbacks.metrics_csv import HEADER, MetricsFile, rewind_metrics_csv


def read(file):
    with open(file, newline="") as f:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(f)]


@pytest.fixture
def file(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv", interval=0.0)
    file.create()
    return file


def test_training_and_validation_of_a_window_share_a_row(file):
    file.add({"train/loss": 2.0}, 10)
    file.add({"val/loss": 3.0}, 10)
    assert read(file.file) == []
    file.add({"train/loss": 1.0}, 20)
    first = {"step": "10", "train/loss": "2.0", "val/loss": "3.0"}
    assert read(file.file) == [first]
    file.flush()
    file.flush()
    assert read(file.file) == [first, {"step": "20", "train/loss": "1.0"}]


def test_rows_are_buffered(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv", interval=1000.0)
    file.create()
    for window in range(5):
        file.add({"train/loss": 1.0}, window)
    assert len(read(file.file)) == 1  # the first, as nothing was written before
    file.flush()
    assert len(read(file.file)) == 5


def test_rows_that_cannot_be_written_are_kept(file, monkeypatch):
    file.add({"train/loss": 2.0}, 10)
    writerows = csv.DictWriter.writerows

    def fail(self, rows):
        writerows(self, rows)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", fail)
    for window in (20, 30):
        with pytest.raises(OSError, match="No space"):
            file.add({"train/loss": 1.0}, window)
        assert read(file.file) == []
    monkeypatch.undo()
    file.flush()
    assert [row["step"] for row in read(file.file)] == ["10", "20", "30"]


def test_existing_file_is_appended_to(file):
    file.add({"train/loss": 2.0}, 10)
    file.flush()
    again = MetricsFile(file.file)
    again.create()
    again.add({"train/loss": 1.0}, 20)
    again.flush()
    assert [row["step"] for row in read(file.file)] == ["10", "20"]


@pytest.mark.parametrize(("windows", "steps"), [(-1, []), (10, ["10"]), (99, ["10", "20"])])
def test_rewind(file, windows, steps):
    for step in (10, 20):
        file.add({"train/loss": 1.0}, step)
    file.flush()
    with open(file.file, "a") as f:
        f.write("30,1.0")  # cut short by a kill
    scratch = file.file.with_name(".metrics.csv.123")  # of a process that was killed
    scratch.touch()
    rewind_metrics_csv(file.file, windows)
    assert [row["step"] for row in read(file.file)] == steps and not scratch.exists()
    assert file.file.read_text().splitlines()[0] == ",".join(HEADER)


def test_rewind_without_a_file(tmp_path):
    rewind_metrics_csv(tmp_path / "metrics.csv", 10)
    assert list(tmp_path.iterdir()) == []
