"""CharTask: the LightningModule. Loss, carry, roll, optimizer, and what a checkpoint holds.

T time steps in a window, B rows of this process, R rows of all processes, L layers, H hidden size.
"""

import inspect
import math
from collections.abc import Callable
from typing import NoReturn

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import Precision
from torch import Tensor, nn

from charrnn import __version__
from charrnn.checkpoint.format import FORMAT
from charrnn.data.stream import Window
from charrnn.errors import Diverged, InputError, check
from charrnn.training.lightning_loops import set_progress, shorten

ROLLOVERS = ("roll", "reset", "carry")


class CharTask(LightningModule):
    """A character model in training.

    Args:
        model: as in :mod:`charrnn.models`.
        optimizer: from parameters to an optimizer.
        scheduler: from an optimizer (and ``total_steps``, where it takes them) to a scheduler; one
            whose step takes a loss is stepped after each validation, another after each window.
        description: what a checkpoint says of the run beside its state: settings, charset and
            corpus, in plain containers.
        reduction: what is differentiated, the "mean" over a window's T B characters or their "sum".
        l2: lambda of lambda/2 times the sum of squares of all weight matrices, beside the summed
            loss.
        rollover: what becomes of the carry when a pass begins: "roll" hands row i the state of row
            i - 1, where its text begins; "reset" makes it zero; "carry" leaves it.
        max_characters: a budget: the run ends with the window that reaches it; None is none.
        on_divergence: whether a loss that is not finite, or a spike, ends the run ("stop"), or
            train.py takes it up again from a checkpoint before it ("rollback").
        spike_factor: how many times its running mean a window's loss must be for a spike; None
            knows none.
        rollback_factor: what the learning rate is multiplied by at a rollback.
        max_rollbacks: how many there may be in a run; one more divergence ends it.
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
    ):
        some = max_characters is None or max_characters >= 1
        check("max_characters", max_characters, some, "a whole number, at least 1, or null")
        check("reduction", reduction, reduction in ("mean", "sum"), "mean or sum")
        check("l2", l2, 0 <= l2 < float("inf"), "at least 0")
        check("rollover", rollover, rollover in ROLLOVERS, " or ".join(ROLLOVERS))
        ways = ("stop", "rollback")
        check("on_divergence", on_divergence, on_divergence in ways, " or ".join(ways))
        wanted = "above 1, or null"
        check("spike_factor", spike_factor, spike_factor is None or spike_factor > 1, wanted)
        in_range = 0 < rollback_factor <= 1
        check("rollback_factor", rollback_factor, in_range, "above 0, at most 1")
        check("max_rollbacks", max_rollbacks, max_rollbacks >= 0, "a whole number, at least 0")
        super().__init__()
        self.model = model
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.description = description or {}
        self.reduction, self.l2, self.rollover = reduction, l2, rollover
        self.max_characters = max_characters
        self.on_divergence, self.spike_factor = on_divergence, spike_factor
        self.rollback_factor, self.max_rollbacks = rollback_factor, max_rollbacks
        self.rollbacks = 0
        """How often this run was taken back; ``taken_back`` says that it is being so now."""
        self.taken_back = False
        self.mean_loss: Tensor | None = None
        """Running mean of the windows' losses, over some hundred of them."""
        self.spike = torch.zeros(())  # the largest of loss / mean_loss since the last look
        self.carry: Tensor | None = None
        """State (L, B, H) in which the next window starts, detached."""
        self.position: dict[str, int] | None = None
        """The stream's position after the last finished window."""
        self.rounds = 0
        """Finished rounds; ``round_windows`` counts the windows of the one under way."""
        self.round_windows = 0
        self.window_loss: Tensor | None = None
        """Mean nats of the last window."""
        self.gradient_stats: dict[str, Tensor] = {}
        """Norm before clipping and share of clipped elements, of windows that are logged."""
        self.validations: list[list[float]] = []
        """[windows, mean nats] of every validation, the untrained one first."""
        self.stopped = ""
        """Why a callback ended the run before its time."""
        self._resumed: dict | None = None

    def __setattr__(self, name: str, value: object) -> None:
        # Lightning writes down the hook it is in twenty times a window, and torch would look each
        # time whether it is a parameter.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # Training

    def setup(self, stage: str) -> None:
        shorten(self.trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # The scheduler is stepped and saved here and not by Lightning, which steps those that
        # take a loss after the checkpoint of a round.
        self.optimized = list(self.parameters())  # walking the modules at each window takes longer
        optimizer = self.make_optimizer(self.optimized)
        takes = inspect.signature(self.make_scheduler).parameters
        total = {"total_steps": self.total_steps()} if "total_steps" in takes else {}
        self.scheduler = self.make_scheduler(optimizer, **total)
        takes = inspect.signature(self.scheduler.step).parameters.values()
        self.steps_on_loss = any(p.default is p.empty and p.name != "self" for p in takes)
        return optimizer

    def total_steps(self) -> int | None:
        """The windows of the whole run, for schedules that end with it; None where none is set."""
        trainer, limits = self.trainer, []
        if trainer.max_steps > 0:
            limits.append(trainer.max_steps)
        if (trainer.max_epochs or 0) > 0:
            rounds = trainer.datamodule.round_length(trainer.limit_train_batches)
            limits.append(trainer.max_epochs * rounds)
        return min(limits, default=None)

    def on_train_start(self) -> None:
        rows = self.trainer.datamodule.stream.batch_size
        self.carry = self.model.initial_state(rows)
        if self._resumed is not None:
            self._restore(self._resumed)
            self._resumed = None
        else:
            self.position = self.trainer.datamodule.stream.state_dict()
            self._part_random_numbers()

    def training_step(self, window: Window, batch_idx: int) -> Tensor:
        if window.index == 0:
            self.carry = self.roll(self.carry)
        loss, state = self.model.loss(window.inputs, window.targets, self.carry)
        self.carry, self.window_loss = state.detach(), loss.detach()
        if self.spike_factor is not None:
            self.follow(self.window_loss)
        if not loss.is_cuda:  # on a GPU the question would wait for it; Metrics asks there
            self.check_finite()
        if self.reduction == "sum":
            # Of all rows: the gradients are means over the processes.
            return loss * (window.inputs.numel() * self.trainer.world_size)
        return loss

    def roll(self, carry: Tensor) -> Tensor:
        """The carry (L, B, H) with which a pass begins. Before the first pass it is zero anyway."""
        if self.rollover == "roll":
            rolled = carry.roll(1, dims=1)
            if self.trainer.world_size > 1:  # row 0 is the neighbour of the last process's last row
                last_rows = [torch.empty_like(carry[:, 0]) for _ in range(self.trainer.world_size)]
                torch.distributed.all_gather(last_rows, carry[:, -1].contiguous())
                rolled[:, 0] = last_rows[self.global_rank - 1]
            return rolled
        return torch.zeros_like(carry) if self.rollover == "reset" else carry

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        stream = self.trainer.datamodule.stream
        gradients = [p.grad for p in self.optimized if p.grad is not None]
        if self.l2:
            rows = stream.batch_size * self.trainer.world_size
            characters = rows * stream.seq_len if self.reduction == "mean" else 1
            weights = [p for p in self.optimized if p.dim() > 1 and p.grad is not None]
            torch._foreach_add_(
                [w.grad for w in weights], [w.detach() for w in weights], alpha=self.l2 / characters
            )
        bound = gradient_clip_val if gradient_clip_algorithm == "value" else None
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            self.gradient_stats = gradient_stats(gradients, bound)
        if bound and gradients and type(self.trainer.precision_plugin) is Precision:
            # What clip_grad_value_ does, without its sorting by device and type: 0.1 ms a window.
            torch._foreach_clamp_min_(gradients, -bound)
            torch._foreach_clamp_max_(gradients, bound)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_end(self, outputs, window: Window, batch_idx: int) -> None:
        if not self.steps_on_loss:
            self.scheduler.step()
        self.position = self.trainer.datamodule.stream.state_dict()
        self.round_windows = batch_idx + 1
        if self.max_characters and self.global_step >= self.trainer.max_steps:
            self.trainer.should_stop = True  # which, unlike max_steps alone, validates first

    def on_train_epoch_end(self) -> None:
        # A round that max_steps, max_time or a callback cut short is not finished.
        if self.round_windows >= self.trainer.num_training_batches:
            self.rounds, self.round_windows = self.rounds + 1, 0

    def follow(self, loss: Tensor) -> None:
        """Compare a window's loss with the running mean, and take it in."""
        mean = loss if self.mean_loss is None else self.mean_loss
        self.spike = torch.maximum(self.spike.to(loss), loss / mean)
        self.mean_loss = mean + 0.01 * (loss - mean)

    def check_finite(self) -> None:
        """Raise Diverged where the last window's loss is not finite, or spiked."""
        if not math.isfinite(loss := self.window_loss.item()):
            self.diverged(f"the loss is {loss} at window {self.global_step + 1}")
        if self.spike_factor is not None:
            times, self.spike = self.spike.item(), torch.zeros(())
            if times > self.spike_factor:
                self.diverged(
                    f"the loss is {times:.3g} times its running mean at window"
                    f" {self.global_step + 1}"
                )

    def diverged(self, what: str) -> NoReturn:
        # The weights with which this window began made it so. Those with which the last one began
        # that was looked at did not.
        unseen = self.trainer.log_every_n_steps if self.device.type == "cuda" else 0
        raise Diverged(what, self.global_step - 1 - unseen)

    # Validation, with a state of its own

    def on_validation_epoch_start(self) -> None:
        self.validation_state = self.trainer.datamodule.validation.initial_state(self.model)
        self.validation_nats = torch.zeros((), dtype=torch.float64, device=self.device)
        self.validation_count = 0

    def validation_step(self, window: Window, batch_idx: int) -> None:
        inputs, targets = window.inputs, window.targets
        nats, self.validation_state = self.model.nll(inputs, targets, self.validation_state)
        self.validation_nats += nats.sum(dtype=torch.float64)
        self.validation_count += int((targets >= 0).sum())

    def on_validation_epoch_end(self) -> None:
        # Every process reads the whole text; what follows from the loss must be the same in all.
        loss = self.validation_nats.item() / max(1, self.validation_count)
        if self.trainer.world_size > 1:
            loss = self.trainer.strategy.broadcast(loss)
        if not loss < float("inf"):
            self.diverged(f"the validation loss is {loss} at window {self.global_step}")
        self.validations.append([self.global_step, loss])
        if self.steps_on_loss:
            self.scheduler.step(loss)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        finite = all(bool(torch.isfinite(p).all()) for p in self.parameters())
        if not finite:
            self.diverged(f"the weights are not finite after window {self.global_step}")
        set_progress(checkpoint["loops"], self.rounds, self.round_windows, self.global_step)
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available() and self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        carry, others = self.carry, []
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, (self.carry.cpu(), random))
            carry = torch.cat([part for part, _ in parts], 1)
            random, *others = (state for _, state in parts)
        checkpoint["charrnn"] = {
            "format": FORMAT,
            "version": __version__,
            **self.description,
            "carry": carry,
            "position": self.position,
            "random": random,
            "random_of_others": others,
            "scheduler": self.scheduler.state_dict(),
            "windows": self.global_step,
            "rounds": self.rounds,
            "round_windows": self.round_windows,
            "validations": self.validations,
            "mean_loss": self.mean_loss,
            "rollbacks": self.rollbacks,
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._resumed = checkpoint["charrnn"]

    def _restore(self, ours: dict) -> None:
        layers, rows, hidden = self.carry.shape
        carry, here = ours["carry"], (layers, rows * self.trainer.world_size, hidden)
        if carry.shape != here:
            raise InputError(
                f"resume: the carry is (L, R, H) = {tuple(carry.shape)} there and {here} here;"
                " a run keeps its sizes and its rows, data.batch_size times the processes"
            )
        first = self.global_rank * rows
        self.carry = carry[:, first : first + rows].contiguous().to(self.carry)
        self.trainer.datamodule.stream.load_state_dict(ours["position"])
        self.position = ours["position"]
        self.rounds, self.round_windows = ours["rounds"], ours["round_windows"]
        self.validations = ours["validations"]
        self.mean_loss = ours.get("mean_loss")
        self._restore_rates(ours)
        states = [ours["random"], *ours.get("random_of_others", [])]
        if self.global_rank >= len(states):
            self._part_random_numbers()
            return
        random = states[self.global_rank]
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)

    def _part_random_numbers(self) -> None:
        """Have every process but the first draw others than those of the same seed."""
        if self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def _restore_rates(self, ours: dict) -> None:
        """The scheduler's state, and settings of the optimizer that were changed on resuming."""
        optimizer = self.trainer.optimizers[0]
        self.scheduler.load_state_dict(ours["scheduler"])
        before = ours["settings"]["optimizer"]
        now = self.description["settings"]["optimizer"]
        if self.taken_back:
            self._scale_rates(optimizer, now["lr"] / before["lr"])
        for key, value in now.items():
            if key in before and before[key] != value and not (key == "lr" and self.taken_back):
                for group in optimizer.param_groups:
                    group[key] = value
                    if key == "lr" and "initial_lr" in group:
                        group["initial_lr"] = value
                if key == "lr" and hasattr(self.scheduler, "base_lrs"):
                    self.scheduler.base_lrs = [value] * len(self.scheduler.base_lrs)

    def _scale_rates(self, optimizer: torch.optim.Optimizer, factor: float) -> None:
        """Multiply the rate, as it is and as schedulers know it from the beginning."""
        for group in optimizer.param_groups:
            for key in {"lr", "initial_lr"} & group.keys():
                group[key] *= factor
        for name in {"base_lrs", "_last_lr"} & vars(self.scheduler).keys():
            setattr(self.scheduler, name, [rate * factor for rate in vars(self.scheduler)[name]])


def gradient_stats(gradients: list[Tensor], bound: float | None) -> dict[str, Tensor]:
    """The norm of all gradients together and the share of elements beyond +-bound."""
    elements = torch.cat([g.flatten() for g in gradients])
    stats = {"grad_norm": elements.norm()}
    if bound is not None:
        stats["clipped"] = (elements.abs() > bound).sum() / elements.numel()
    return stats
