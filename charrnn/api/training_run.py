"""Training from Python: ``train`` and ``TrainingRun``."""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

from charrnn import checkpoint
from charrnn.api.language_model import LanguageModel, load
from charrnn.data.charset import Charset
from charrnn.data.files import user_path
from charrnn.errors import InputError, check_working_directory
from charrnn.runs import write_report
from charrnn.training.distributed import check_environment


class TrainingRun:
    """A run of :func:`train`: its model, its folder and its validations, and how to go on.

    Attributes:
        folder: the run's folder, as that of ``charrnn train``.
        is_interrupted: whether Ctrl-C ended it before its end.
    """

    def __init__(self, trained):
        self._update(trained)

    def _update(self, trained) -> None:
        """Take over a result of :func:`charrnn.cli.from_python.train`."""
        self._run, self._allowed = trained.run, trained.command.allow_targets
        self.folder: Path = trained.run.job.folder
        self.is_interrupted: bool = trained.is_interrupted
        self._model: LanguageModel | None = None

    def __repr__(self) -> str:
        first = self._state.get("validation_text", {}).get("first", 0)  # of those that compare
        best = min((row["bpc"] for row in self.validations[first:] if row["window"]), default=None)
        score = "" if best is None else f", best validation {best:.4f} bpc"
        state = ", interrupted" if self.is_interrupted else ""
        return f"TrainingRun({str(self.folder)!r}, window {self._state['windows']}{score}{state})"

    @property
    def model(self) -> LanguageModel:
        """The model as it is now; ``charrnn.load(run.folder / "checkpoints/best.ckpt")`` is the
        one with the lowest validation loss."""
        if self._model is None:
            if self._last.exists():
                self._model = load(self._last, list(self._run.config.allow_targets))
            else:  # of trainer.fast_dev_run, which saves nothing
                task = self._run.task
                charset = Charset(**task.description["charset"])
                self._model = LanguageModel(task.model.eval(), charset)
        return self._model

    @property
    def validations(self) -> list[dict[str, float]]:
        """A row for each validation: ``window``, ``characters`` read so far, ``loss`` in nats per
        character, and ``bpc``. ``pandas.DataFrame(run.validations)`` makes a table of it."""
        stream = self._run.data.stream
        size = stream.batch_size * stream.seq_len
        return [
            {"window": w, "characters": w * size, "loss": loss, "bpc": loss / math.log(2)}
            for w, loss in self._state["validations"]
        ]

    def train(self, **settings) -> "TrainingRun":
        """Go on exactly where the run stopped, as ``charrnn train resume=RUN`` does.

        Args:
            settings: those that change, such as ``max_epochs=6``. Without any, an interrupted run
                goes on to the end it was to have.

        Returns:
            This run.

        Raises:
            InputError: a setting is wrong, or cannot be changed in a run that is resumed.
        """
        from charrnn.cli import from_python

        overrides = [f"resume={self.folder}", *self._allowed]
        self._update(from_python.train(overrides, settings))
        return self

    def plot(self):
        """Draw bits per character of training and validation against windows.

        Returns:
            A ``matplotlib.figure.Figure``.

        Raises:
            InputError: matplotlib is not installed, or the run's metrics.csv is gone.
        """
        try:
            from matplotlib import pyplot
        except ImportError:
            raise InputError("plot: needs matplotlib; pip install matplotlib") from None
        file = self.folder / "metrics.csv"
        if not file.is_file():
            raise InputError(f"{file}: no such file; it has the numbers to plot")
        with open(file, newline="") as f:
            rows = list(csv.DictReader(f))
        figure, axes = pyplot.subplots(figsize=(7, 4))
        pyplot.close(figure)  # a notebook shows what a cell returns, and would show it twice
        for part, style in (("train", "-"), ("val", "o-")):
            points = [(int(r["step"]), float(r[f"{part}/bpc"])) for r in rows if r[f"{part}/bpc"]]
            axes.plot(*zip(*points), style, label=part) if points else None
        axes.set(xlabel="windows", ylabel="bits per character", title=self.folder.name)
        axes.grid(alpha=0.3)
        axes.legend()
        return figure

    def report(self) -> Path:
        """Write report.html into the run's folder, samples and curves on one page; return it."""
        return write_report(self.folder)

    @property
    def _last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def _state(self) -> dict:
        """Windows and validations of the last checkpoint, or of this process without one."""
        if self._last.exists():
            return checkpoint.read(self._last)["charrnn"]
        task = self._run.task
        return {"windows": task.global_step, **task.validations.state_dict()}


def train(
    path: str | Path | Sequence[str | Path] | None = None,
    overrides: Sequence[str] = (),
    *,
    text: str | None = None,
    folder: str | Path | None = None,
    **settings,
) -> TrainingRun:
    """Train a model in this process, with the settings and defaults of ``charrnn train``.

    >>> run = charrnn.train("book.txt", hidden_size=256, max_epochs=3)
    >>> print(run.model.generate("The ", length=200))
    >>> run.train(max_epochs=6)
    >>> charrnn.train(overrides=["experiment=tiny_shakespeare", "optimizer.lr=2e-3"])

    Ctrl-C finishes the window, saves, and returns the run. The random state of torch, Hydra's and
    Lightning's are as before when it returns. One thread of a process trains at a time.

    Args:
        path: the text, ``data.path``: a file, a folder, a glob or a list of them. None trains on
            what ``overrides`` and settings say, by default the source of Python's library.
        overrides: ``KEY=VALUE`` as on the command line.
        text: the text itself, in place of ``path``. It is kept in the cache of texts, from which
            a resumed run reads it.
        folder: of the run; None makes a new one below ``outputs/``.
        settings: values by the last part of a key (``hidden_size=256`` for
            ``model.hidden_size=256``), by a group (``model="gru_resize"``), by a whole key
            (``**{"callbacks.samples.length": 80}``), or in a dictionary by the first part of keys
            (``model={"_target_": "mypkg.MyModel", "hidden_size": 80}``).

    Raises:
        InputError: a setting is wrong, or its name is unknown or ambiguous; also for a sweep,
            several devices, and while another thread trains.
    """
    check_environment()
    check_working_directory()
    from charrnn.cli import from_python

    if path is not None and text is not None:
        raise InputError("train: path and text are both given; give one")
    if isinstance(path, str) and "\n" in path and not os.path.exists(user_path(path)):
        raise InputError("train: path is a text of several lines; give that as text=")
    if text is not None:
        path = from_python.write_text(text)
    if path is not None:
        settings["data.path"] = path
    if folder is not None:
        settings["hydra.run.dir"] = user_path(folder)
    return TrainingRun(from_python.train(overrides, settings))
