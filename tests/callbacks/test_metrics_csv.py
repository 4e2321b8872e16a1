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
    rewind_metrics_csv(file.file, windows)
    assert [row["step"] for row in read(file.file)] == steps
    assert file.file.read_text().splitlines()[0] == ",".join(HEADER)


def test_rewind_without_a_file(tmp_path):
    rewind_metrics_csv(tmp_path / "metrics.csv", 10)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_created_is_created_with_its_first_rows(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path / "metrics.csv", interval=0.0)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space.*metrics\.csv"):
        file.create()
    file.add({"train/loss": 1.0}, 5)
    with pytest.raises(OSError, match=r"No space.*metrics\.csv"):
        file.add({"train/loss": 1.0}, 10)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    file.flush()
    assert [row["step"] for row in read(file.file)] == ["5", "10"]


@pytest.mark.parametrize("content", ["", "\0\0\0", "st", "step,train/l"], ids=repr)
def test_a_file_of_which_a_loss_of_power_left_little(tmp_path, content):
    file = tmp_path / "metrics.csv"
    file.write_text(content)
    rewind_metrics_csv(file, 10)
    assert file.read_text().splitlines() == [",".join(HEADER)] or content.startswith("step,")
    again = MetricsFile(file)
    again.create()
    again.add({"val/loss": 2.0}, 5)
    again.flush()
    assert [(row["step"], row["val/loss"]) for row in read(file)] == [("5", "2.0")]


def test_rows_with_zeros_from_a_loss_of_power_are_left_out(file):
    file.add({"train/loss": 1.0}, 5)
    file.flush()
    with open(file.file, "a") as f:
        f.write("\0" * 30)
    rewind_metrics_csv(file.file, 10)
    assert [row["step"] for row in read(file.file)] == ["5"]


def test_rows_are_on_the_disk_before_a_checkpoint_is(file, monkeypatch):
    """Which flushes them, as rows that are written on the way are not."""
    flushed = []
    monkeypatch.setattr("os.fsync", flushed.append)
    file.add({"train/loss": 1.0}, 5)
    file.add({"train/loss": 1.0}, 10)
    assert not flushed
    file.flush()
    assert len(flushed) == 1
