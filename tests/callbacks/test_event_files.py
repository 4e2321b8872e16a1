"""Event files: TensorBoard still has the private names, and rewinding keeps earlier events."""

import threading
from types import SimpleNamespace

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from charrnn.callbacks import event_files
from charrnn.callbacks.event_files import BY_CHARACTERS, PATTERN, rewind_event_files


@pytest.fixture
def logger(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    yield logger
    logger.finalize("success")


def write(logger, *windows):
    for window in windows:
        logger.log_metrics({"train/bpc": float(window)}, step=window)
        logger.log_metrics({f"{BY_CHARACTERS}train/bpc": float(window)}, step=21 * window)
    logger.experiment.flush()


def steps(folder, tag):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in events.Scalars(tag)]


def test_rewind_keeps_events_up_to_a_window(logger, tmp_path):
    write(logger, 10, 20, 30)
    rewind_event_files(tmp_path, 20, 21)
    assert steps(tmp_path, "train/bpc") == [10, 20]
    assert steps(tmp_path, f"{BY_CHARACTERS}train/bpc") == [210, 420]
    assert [file.name[0] for file in tmp_path.iterdir()] == ["e"]


def test_files_from_the_future_come_before_the_next(logger, tmp_path):
    write(logger, 10)
    (file,) = tmp_path.glob(PATTERN)
    future = file.name.split(".")
    future[3] = "4102444800"  # the year 2100
    file.rename(file.with_name(".".join(future)))
    rewind_event_files(tmp_path, 10, 21)
    (file,) = tmp_path.glob(PATTERN)
    assert file.name.split(".")[3] == "0000000000"
    assert steps(tmp_path, "train/bpc") == [10]


def test_files_of_this_second_come_before_the_next(logger, tmp_path, monkeypatch):
    """Whose name would else be sorted by the number of its process: 10217 before 9953."""
    write(logger, 10)
    (file,) = tmp_path.glob(PATTERN)
    second = int(file.name.split(".")[3])
    for now, number in ((second + 1.0, second), (second + 0.9, 0)):
        monkeypatch.setattr(event_files, "time", SimpleNamespace(time=lambda now=now: now))
        rewind_event_files(tmp_path, 10, 21)
        (file,) = tmp_path.glob(PATTERN)
        assert int(file.name.split(".")[3]) == number
    assert steps(tmp_path, "train/bpc") == [10]


def test_hyperparameters_are_added_to_the_same_run(logger, tmp_path):
    event_files.add_hparams(logger, {"lr": 0.1}, ("val/bpc",))
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.SummaryMetadata
    assert tags("_hparams_/session_start_info") and tags("_hparams_/experiment")
    assert [file.is_file() for file in tmp_path.iterdir()] == [True]  # no folder of its own


def test_reopened_logger_writes_a_new_file(logger, tmp_path):
    write(logger, 10)
    writer = logger.experiment._get_file_writer()
    event_files.reopen(logger)
    write(logger, 20)
    assert logger.experiment._get_file_writer() is not writer
    assert steps(tmp_path, "train/bpc")[-1] == 20
    writer.close()


def test_writer_threads_are_known(logger):
    write(logger, 10)
    threads = [thread for thread in threading.enumerate() if event_files.is_event_writer(thread)]
    assert threads and not event_files.is_event_writer(threading.main_thread())
