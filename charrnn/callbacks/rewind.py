"""Rewinding a run's folder to an earlier window: its checkpoints, numbers, samples and events.

What came after that window happens again when the run resumes or rolls back.
"""

import contextlib
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tqdm import tqdm

from charrnn import checkpoint
from charrnn.callbacks.csv_logger import rewind_csv_logger
from charrnn.callbacks.event_files import rewind_event_files
from charrnn.callbacks.metrics_csv import rewind_metrics_csv
from charrnn.callbacks.samples_file import rewind_samples
from charrnn.checkpoint.files import link
from charrnn.errors import InputError


def rewind_logs(run: Path, windows: int, characters_per_window: int, loggers=()) -> None:
    """Remove what metrics.csv, samples.jsonl and the files of loggers hold after a window.

    Args:
        run: the run's folder.
        windows: the last window that stays; -1 removes everything.
        characters_per_window: of all ranks, for the curves against characters.
        loggers: those of Lightning; of TensorBoardLogger and CSVLogger the files are rewound.
    """
    rewind_metrics_csv(run / "metrics.csv", windows)
    rewind_samples(run, windows)
    folders = {Path(g.log_dir) for g in loggers if isinstance(g, TensorBoardLogger)}
    for folder in {run / "tensorboard", *folders}:
        rewind_event_files(folder, windows, characters_per_window)
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            rewind_csv_logger(logger, windows)


def rewind_checkpoints(folder: Path, file: Path) -> None:
    """Make one of a run's checkpoints its last.ckpt, and remove those of later windows.

    At every moment last.ckpt is a checkpoint from which the run can resume. Does nothing if the
    file is last.ckpt or lies in another folder.

    Args:
        folder: the run's ``checkpoints/``.
        file: the checkpoint from which the run resumes.
    """
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    if file.parent != folder or file == last:
        return
    windows = checkpoint.read(file)["charrnn"]["windows"]
    whole = {}
    for other in sorted(folder.glob("*.ckpt")):
        with contextlib.suppress(InputError):
            whole[other] = checkpoint.read(other)["charrnn"]
    later = {other for other, saved in whole.items() if saved["windows"] > windows}
    if later:
        tqdm.write(f"rewinding to window {windows}: later checkpoints of this run are removed")
    link(file, last)
    for other in later - {last}:
        other.unlink()
    text = whole[file].get("validation_text", {})
    kept = [
        (saved["validations"][-1][1], other)
        for other, saved in whole.items()
        if other not in later and saved["validations"] and saved.get("validation_text", {}) == text
    ]
    if kept and best not in whole.keys() - later:
        link(min(kept)[1], best)
