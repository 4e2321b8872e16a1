"""StochasticWeightAveraging: Lightning's, so that the last checkpoint has the average.

The only file of this room that uses private names of Lightning's callbacks.
tests/callbacks/test_averaging.py fails when Lightning changes them.
"""

import torch
from pytorch_lightning import callbacks
from torch import nn
from torch.optim.swa_utils import SWALR
from tqdm import tqdm

from charrnn.errors import InputError, check
from charrnn.training.lightning_internals import validate

CURRENT = "current_model_state"
"""The key of a checkpoint for the weights that are trained, where its state_dict is an average;
as Lightning's WeightAveraging has it."""


class StochasticWeightAveraging(callbacks.StochasticWeightAveraging):
    """Averages the weights with which rounds begin, from a round on.

    Izmailov et al. 2018, arXiv:1803.05407. The arguments are those of Lightning's callback of this
    name, and the average is the same. In the averaged rounds ``swa_lrs`` is the learning rate, and
    ``scheduler`` rests.

    However training ends, the model then has the average, which is validated once more and saved as
    last.ckpt. The weights that were trained are beside it, and a longer run goes on with them.
    Before, checkpoints have the trained weights, and the average so far beside them. A run that is
    resumed gives the average of an uninterrupted one, bit for bit.
    """

    @classmethod
    def of(cls, callback: callbacks.StochasticWeightAveraging) -> "StochasticWeightAveraging":
        """The callback with the arguments of Lightning's own."""
        made = cls.__new__(cls)
        vars(made).update(vars(callback))
        return made

    current: dict[str, torch.Tensor] | None = None
    """The trained weights, from the moment when the model has the average."""
    is_resumed = False
    """Whether the next window is the first of a run that goes on."""

    def verify(self, trainer, model: nn.Module) -> None:
        """Raise InputError for what would fail only when averaging begins."""
        name = "StochasticWeightAveraging: "
        if self.pl_module_contains_batch_norm(model):
            raise InputError(f"{name}the statistics of BatchNorm would need a round of their own")
        start, rounds = self._swa_epoch_start, trainer.max_epochs
        is_known = not isinstance(start, float) or (rounds or 0) > 0
        check(f"{name}swa_epoch_start", start, is_known, "a round where trainer.max_epochs is none")
        try:
            SWALR(
                torch.optim.SGD([torch.zeros(1)], lr=1.0),
                swa_lr=self._swa_lrs,
                anneal_epochs=self._annealing_epochs,
                anneal_strategy=self._annealing_strategy,
            )
        except (ValueError, TypeError) as error:
            raise InputError(f"{name}{error}") from error

    def on_train_start(self, trainer, task) -> None:
        self.is_resumed = trainer.ckpt_path is not None

    def on_train_batch_start(self, trainer, task, batch, batch_idx: int) -> None:
        # Lightning calls the hook of a round's start only where a round starts in this process.
        # Of a round that was counted already it counts nothing.
        if self.is_resumed and (self._scheduler_state is not None or not task.round_windows):
            self.on_train_epoch_start(trainer, task)
        self.is_resumed = False

    def on_train_end(self, trainer, task) -> None:
        # Lightning's own leaves the trained weights where a run ends before its last round.
        if self.n_averaged is None:
            begin = f"round {self.swa_start + 1}, which this run has not reached"
            tqdm.write(f"StochasticWeightAveraging begins with {begin}: nothing was averaged")
            return
        self.current = {name: value.clone() for name, value in task.state_dict().items()}
        self.transfer_weights(self._average_model, task)
        tqdm.write(f"the average of {int(self.n_averaged)} rounds' weights:")
        validate(trainer)

    def on_save_checkpoint(self, trainer, task, checkpoint: dict) -> None:
        if self.current is not None:
            checkpoint[CURRENT] = self.current

    def on_load_checkpoint(self, trainer, task, checkpoint: dict) -> None:
        if CURRENT in checkpoint:
            task.load_state_dict(checkpoint[CURRENT])
