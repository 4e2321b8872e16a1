"""A run's folder goes back to a window: numbers, samples, events, checkpoints."""

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from small_models import saved_model

from charrnn import GRUEncode, checkpoint
from charrnn.callbacks.rewind import rewind_checkpoints, rewind_logs
from charrnn.callbacks.samples_file import append_sample, read_samples

WINDOWS = (5, 10, 15)


@pytest.fixture
def loggers(tmp_path):
    made = [TensorBoardLogger(tmp_path, name="tensorboard", version=""),
            TensorBoardLogger(tmp_path, name="mine", version=""),
            CSVLogger(tmp_path, name="csv", version="a")]  # fmt: skip
    yield made
    for logger in made[:2]:
        logger.finalize("success")


def steps(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [e.step for e in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


def test_logs(tmp_path, loggers):
    rows = "".join(f"{window},1.5\n" for window in WINDOWS)
    (tmp_path / "metrics.csv").write_text(f"step,train/loss\n{rows}")
    for window in WINDOWS:
        append_sample(tmp_path, window, "a")
        for logger in loggers:
            logger.log_metrics({"train/loss": 1.5}, step=window)
    for logger in loggers:
        logger.save()
    again = CSVLogger(tmp_path, name="csv", version="a")  # as a resumed run makes it
    rewind_logs(tmp_path, 10, 21, [*loggers[:2], again])
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["5,1.5", "10,1.5"]
    assert [sample["window"] for sample in read_samples(tmp_path)] == [5, 10]
    assert steps(tmp_path / "tensorboard") == steps(tmp_path / "mine") == [5, 10]
    lines = (tmp_path / "csv" / "a" / "metrics.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["5", "10"]


@pytest.mark.parametrize("best", [5, 15])
def test_checkpoints(tmp_path, best):
    """The best of those that stay is best.ckpt, also where the best of all came later."""
    _, _, content = saved_model(GRUEncode, "abc", hidden_size=2, num_layers=1)
    losses = {5: 2.0, 10: 3.0, 15: 4.0} | ({15: 1.0} if best == 15 else {})
    for window in WINDOWS:
        known = [[w, loss] for w, loss in losses.items() if w <= window]
        content["charrnn"] |= {"windows": window, "validations": known}
        checkpoint.save(content, tmp_path / f"round_{window:04d}.ckpt")
        if window == best:
            checkpoint.save(content, tmp_path / "best.ckpt")
    checkpoint.save(content, tmp_path / "last.ckpt")
    rewind_checkpoints(tmp_path, tmp_path / "round_0010.ckpt")
    found = {f.stem: checkpoint.read(f)["charrnn"]["windows"] for f in tmp_path.iterdir()}
    assert found == {"last": 10, "best": 5, "round_0005": 5, "round_0010": 10}
