"""Relay: a logger of Lightning that passes on what ``task.log`` logs."""

from collections.abc import Callable

from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only


class Relay(Logger):
    """Passes the numbers that Lightning logs to a function, without their count of epochs.

    Lightning's steps count from zero; these are finished windows, as in metrics.csv.

    Args:
        trainer: whose ``log`` calls are passed on.
        write: function of the numbers and the window.
    """

    def __init__(self, trainer, write: Callable[[dict[str, float], int], None]):
        super().__init__()
        self.trainer, self.write = trainer, write

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return self.trainer.default_root_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        return None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        numbers = {name: value for name, value in metrics.items() if name != "epoch"}
        if numbers:
            self.write(numbers, self.trainer.global_step)

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        pass
