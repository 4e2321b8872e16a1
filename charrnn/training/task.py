"""CharTask, the LightningModule: training step with truncated BPTT, carry and roll, validation.

T time steps in a window, B rows of this rank, R rows of all ranks.
"""

import inspect
import math
from collections.abc import Callable
from typing import NoReturn

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from charrnn.data.stream import Window
from charrnn.errors import Diverged, check
from charrnn.gru.cuda import nvrtc
from charrnn.gru.optimizer import FusedStep
from charrnn.models import contract
from charrnn.models.state import State, detach, join_rows, map_state, narrow_rows, roll_rows
from charrnn.training.checkpoint_state import restore_state, save_state, seed_rank
from charrnn.training.divergence import DivergenceMonitor, has_finite_parameters
from charrnn.training.gradients import before_clipping, clip_by_value, fused_step
from charrnn.training.lightning_internals import shorten_training_loop
from charrnn.training.loop_progress import set_loop_progress
from charrnn.training.metrics import publish
from charrnn.training.validation import Totals, Validations, forget_losses

ROLLOVERS = ("roll", "reset", "carry")
OF_A_WINDOW = {"carry", "window_loss", "position", "round_windows", "committed", "_current_fx_name"}


class CharTask(LightningModule):
    """Trains a character model on a stream of windows by truncated back-propagation through time.

    The state at the end of a window, detached, is the carry: the next window starts from it.

    Args:
        model: a model of :mod:`charrnn.models`.
        optimizer: function from parameters to an optimizer.
        scheduler: function from an optimizer (and ``total_steps``, if it has that argument) to a
            scheduler. If its ``step`` takes a loss it is stepped after each validation, otherwise
            after each window. It rests while a callback has put another one into
            ``trainer.lr_scheduler_configs``.
        description: settings, charset and corpus of the run, in plain containers, for checkpoints.
        reduction: whether the "mean" or the "sum" over the T * B characters of a window is
            differentiated. Losses are reported as means.
        l2: adds l2 / 2 times the sum of squares of all weight matrices to the summed loss.
        rollover: the carry at the start of a pass: "roll" gives row i the state of row i - 1,
            which ended where row i begins; "reset" is zero; "carry" leaves it.
        max_characters: budget; the run ends with the window that reaches it. None is no budget.
        on_divergence: whether a loss that is not finite or a spike ends the run ("stop") or the
            run goes on from an earlier checkpoint ("rollback").
        spike_factor: a loss of more than this many times the running mean loss is a spike; None
            detects no spikes.
        rollback_factor: a rollback multiplies the learning rate by this.
        max_rollbacks: rollbacks of a run; a further divergence ends it.
        cuda_graph: on a GPU, whether a window is one CUDA graph if it can be ("auto") or never
            ("off").

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable,
        scheduler: Callable,
        description: dict | None = None,
        reduction: str = "mean",
        l2: float = 0.0,
        rollover: str = "roll",
        max_characters: int | None = None,
        on_divergence: str = "stop",
        spike_factor: float | None = None,
        rollback_factor: float = 0.5,
        max_rollbacks: int = 3,
        cuda_graph: str = "auto",
    ):
        positive = max_characters is None or max_characters >= 1
        check("max_characters", max_characters, positive, "a whole number, at least 1, or null")
        check("reduction", reduction, reduction in ("mean", "sum"), "mean or sum")
        check("l2", l2, 0 <= l2 < float("inf"), "at least 0")
        check("rollover", rollover, rollover in ROLLOVERS, " or ".join(ROLLOVERS))
        is_known = on_divergence in ("stop", "rollback")
        check("on_divergence", on_divergence, is_known, "stop or rollback")
        above_one = spike_factor is None or spike_factor > 1
        check("spike_factor", spike_factor, above_one, "above 1, or null")
        in_range = 0 < rollback_factor <= 1
        check("rollback_factor", rollback_factor, in_range, "above 0, at most 1")
        check("max_rollbacks", max_rollbacks, max_rollbacks >= 0, "a whole number, at least 0")
        check("cuda_graph", cuda_graph, cuda_graph in ("auto", "off"), "auto or off")
        super().__init__()
        self.model = model
        self.cuda_graph = cuda_graph
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.description = description or {}
        self.reduction, self.l2, self.rollover = reduction, l2, rollover
        self.max_characters = max_characters
        self.on_divergence, self.max_rollbacks = on_divergence, max_rollbacks
        self.rollback_factor = rollback_factor
        self.monitor = DivergenceMonitor(spike_factor)
        self.rollbacks = 0
        """Rollbacks of this run so far."""
        self.is_rollback = False
        """Whether the checkpoint that is being restored is the target of a rollback."""
        self.carry: State | None = None
        """State of B rows from which the next window starts, detached."""
        self.position: dict[str, int] | None = None
        """The stream's position after the last finished window."""
        self.rounds = 0
        """Finished rounds; ``round_windows`` counts the windows of the current one."""
        self.round_windows = 0
        self.committed = 0
        """Windows whose scheduler step, position and count are part of this state."""
        self.window_loss: Tensor | None = None
        """Mean nats of the last window."""
        self.gradient_stats: dict[str, Tensor] = {}
        """Norm before clipping and share of clipped elements, of windows that are logged."""
        self.validations = Validations()
        self.stopped = ""
        """Why a callback ended the run early."""
        self._saved: dict | None = None
        self.fused: FusedStep | None = None

    def __setattr__(self, name: str, value: object) -> None:
        # These are set at each window, and torch would check whether they are parameters.
        if name in OF_A_WINDOW:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def setup(self, stage: str) -> None:
        # Before a checkpoint is loaded: as Lightning has it, float64 weights pass through float32.
        self.trainer.precision_plugin.convert_module(self)
        shorten_training_loop(self.trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # The scheduler is stepped and saved here and not by Lightning, which steps those that
        # take a loss after the checkpoint of a round.
        self.optimized = list(self.parameters())  # walking the modules at each window takes longer
        optimizer = self.make_optimizer(self.optimized)
        self.fused = fused_step(self, CharTask, optimizer)
        arguments = inspect.signature(self.make_scheduler).parameters
        total = {"total_steps": self.total_steps()} if "total_steps" in arguments else {}
        self.scheduler = self.make_scheduler(optimizer, **total)
        arguments = inspect.signature(self.scheduler.step).parameters.values()
        self.steps_on_loss = any(p.default is p.empty and p.name != "self" for p in arguments)
        return optimizer

    def total_steps(self) -> int | None:
        """The windows of the whole run, for schedules that end with it; None without a limit."""
        trainer, limits = self.trainer, []
        if trainer.max_steps > 0:
            limits.append(trainer.max_steps)
        if (trainer.max_epochs or 0) > 0:
            rounds = trainer.datamodule.round_length(trainer.limit_train_batches)
            limits.append(trainer.max_epochs * rounds)
        return min(limits, default=None)

    def on_train_start(self) -> None:
        stream = self.trainer.datamodule.stream
        self.carry = contract.initial_state(self.model, stream.batch_size)
        if self._saved is not None:
            restore_state(self, self._saved)
            self._saved = None
        else:
            self.position = stream.state_dict()
            seed_rank(self.global_rank)
        self.committed = self.global_step

    def training_step(self, window: Window, batch_idx: int) -> Tensor:
        if window.index == 0:
            self.carry = self.roll(self.carry)
        loss, state = contract.loss(self.model, window.inputs, window.targets, self.carry)
        self.carry, self.window_loss = detach(state, self.carry), loss.detach()
        self.monitor.update(self.window_loss)
        if not loss.is_cuda:  # on a GPU this would wait for it; Metrics checks when it logs
            self.check_divergence()
        return self.objective(loss)

    def objective(self, loss: Tensor) -> Tensor:
        """Return what is differentiated, from the mean loss of a window."""
        if self.reduction == "mean":
            return loss
        # Over the rows of all ranks, because gradients are averaged over the ranks.
        stream = self.trainer.datamodule.stream
        return loss * (stream.seq_len * stream.batch_size * self.trainer.world_size)

    def roll(self, carry: State) -> State:
        """Return the carry with which a pass begins; before the first it is the initial state."""
        rows = self.trainer.datamodule.stream.batch_size
        if self.rollover == "reset":
            return contract.initial_state(self.model, rows)
        if self.rollover == "carry":
            return carry
        dim = contract.batch_dim(self.model)
        rolled = roll_rows(carry, dim)
        if self.trainer.world_size > 1:  # row 0 continues the last row of the previous rank

            def exchange(own: Tensor) -> Tensor:
                every = [torch.empty_like(own) for _ in range(self.trainer.world_size)]
                torch.distributed.all_gather(every, own)
                return every[self.global_rank - 1]

            first = map_state(exchange, narrow_rows(rolled, 0, 1, dim))
            rest = narrow_rows(rolled, 1, rows - 1, dim)
            rolled = join_rows([first, rest], dim)
        return rolled

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        logged = self.is_logged()
        self.gradient_stats = self.clip(optimizer, self.trainer, logged) or self.gradient_stats

    def is_logged(self) -> bool:
        """Whether the statistics of this window's gradients will be written."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    def clip(self, optimizer, trainer, logged: bool) -> dict[str, Tensor]:
        """Add the gradient of l2, then clip; return statistics of before clipping if logged."""
        bound = trainer.gradient_clip_val
        by_value = bound if trainer.gradient_clip_algorithm == "value" else None
        stats = before_clipping(self, by_value, logged)
        gradients = [p.grad for p in self.optimized if p.grad is not None]
        if by_value and gradients and getattr(trainer.precision_plugin, "scaler", None) is None:
            clip_by_value(gradients, by_value)
        else:
            self.clip_gradients(optimizer, bound, trainer.gradient_clip_algorithm)
        return stats

    def on_train_batch_end(self, outputs, window: Window, batch_idx: int) -> None:
        self.commit()
        if self.max_characters and self.global_step >= self.trainer.max_steps:
            self.trainer.should_stop = True  # unlike max_steps, this validates first

    def commit(self) -> None:
        """Make the window that the optimizer has finished part of the task's state, once.

        A callback may save before Lightning calls this module's hook.
        """
        if self.committed == self.global_step:
            return
        if not self.steps_on_loss and not self.trainer.lr_scheduler_configs:
            self.scheduler.step()
        self.position = self.trainer.datamodule.stream.state_dict()
        self.round_windows += 1
        self.committed = self.global_step

    def on_train_epoch_end(self) -> None:
        # A round that max_steps, max_time or a callback cut short is not finished.
        if self.round_windows >= self.trainer.num_training_batches:
            self.rounds, self.round_windows = self.rounds + 1, 0

    def check_divergence(self) -> None:
        """Raise Diverged if the last window's loss is not finite or a spike occurred."""
        if problem := self.monitor.describe(self.window_loss):
            nvrtc.raise_failure()  # what a CUDA kernel reported is the cause
            self._diverged(f"{problem} at window {self.global_step + 1}")

    def _diverged(self, problem: str) -> NoReturn:
        # The weights before this window may be the cause. Those before the last window that was
        # checked were good; on a GPU only logged windows are checked.
        unchecked = self.trainer.log_every_n_steps if self.device.type == "cuda" else 0
        raise Diverged(problem, self.global_step - 1 - unchecked)

    def on_validation_epoch_start(self) -> None:
        windows = self.trainer.datamodule.validation
        self.validated = Totals(self.model, windows, self.device)

    def validation_step(self, window: Window, batch_idx: int) -> None:
        self.validated.add(window)

    def on_validation_epoch_end(self) -> None:
        # Every rank validates on the whole text, but decisions need the very same loss in all.
        loss = self.validated.mean
        if self.trainer.world_size > 1:
            loss = self.trainer.strategy.broadcast(loss)
        if not loss < float("inf"):
            self._diverged(f"the validation loss is {loss} at window {self.global_step}")
        same = self.validations.add(self.global_step, loss, self.validated.characters)
        publish(self.trainer, {"val/loss": loss, "val/bpc": loss / math.log(2)})
        if self.steps_on_loss and not self.trainer.lr_scheduler_configs:
            if not same:
                forget_losses(self.scheduler)
            self.scheduler.step(loss)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        self.commit()
        if not has_finite_parameters(self):
            self._diverged(f"the weights are not finite after window {self.global_step}")
        set_loop_progress(checkpoint["loops"], self.rounds, self.round_windows, self.global_step)
        checkpoint["charrnn"] = save_state(self)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._saved = checkpoint["charrnn"]
