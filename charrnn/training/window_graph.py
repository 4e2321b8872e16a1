"""A window of a run as a CUDA graph: when it can be one, and how it stands for the task's own step.

T time steps, B rows, L layers, H hidden size.
"""

from collections.abc import Callable

import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from charrnn.data.stream import Window
from charrnn.gru.hooks import has_hooks
from charrnn.models import CharModel
from charrnn.training.gradients import before_clipping, bound_of_step
from charrnn.training.graphs import StepGraph, unsupported


def capture(trainer, optimizer, listener: str | None):
    """The graph of a run's windows; None where it cannot be one, which a line on standard output
    says on a GPU.

    Args:
        listener: what else wants to see parts of a step, in words; None where nothing does.
    """
    task = trainer.lightning_module
    if task.device.type != "cuda" or task.cuda_graph == "off":
        return None
    reason = listener or why_not(trainer, optimizer)
    if reason is None:
        try:
            return WindowGraph(trainer, optimizer)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            while error.__context__ is not None:  # the first of them, which is the cause
                error = error.__context__
            reason = str(error).partition("\n")[0]
    if trainer.is_global_zero:
        print(f"a window is not a CUDA graph: {reason}")
    return None


def why_not(trainer, optimizer) -> str | None:
    """Why a run's windows cannot be a graph; None where they can."""
    task, stream = trainer.lightning_module, trainer.datamodule.stream
    precision = trainer.precision_plugin
    mixed = type(precision) is MixedPrecision and precision.scaler is None
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        return "several processes share the step"
    if not mixed and type(precision) is not Precision:
        return f"trainer.precision={trainer.precision} asks the host at each window"
    if trainer.accumulate_grad_batches != 1:
        return "trainer.accumulate_grad_batches is not 1"
    if not stream.tokens.is_cuda:
        return "the text does not fit into the GPU's memory"
    if not (isinstance(task.model, CharModel) and isinstance(task.carry, Tensor)):
        return f"{type(task.model).__name__} is not one of this project's GRUs"
    if has_hooks(task.model):
        return "a hook listens to the model's calls"
    if task.model.boundary is not None:
        return "the text is made of documents, which begin anywhere"
    if task.model.gru.choose_backend(task.device, stream.batch_size) == "reference":
        return "backend=reference is a loop of the host"
    return unsupported(optimizer)


class WindowGraph:
    """A window of a run: its number in, and its loss out.

    The text is on the GPU, and the window is taken from it inside the graph. There are two graphs,
    of which one makes the gradients' statistics too.
    """

    def __init__(self, trainer, optimizer):
        self.trainer, self.task = trainer, trainer.lightning_module
        self.stream = stream = trainer.datamodule.stream
        self.index = torch.zeros((), dtype=torch.int64, device=self.task.device)
        self.carry, self.next = self.task.carry.clone(), None
        self.stats: dict[str, Tensor] = {}
        self.window = tuple(part.contiguous() for part in stream.at(self.index))
        clips = [self._clip(optimizer, logged) for logged in (False, True)]
        self.graph = StepGraph(optimizer, self._forward, clips, [self.carry, *self.window])
        stream.filled = self.window

    def __call__(self, window: Window) -> dict[str, Tensor]:
        task = self.task
        if task.carry is not self.carry:  # restored from a checkpoint
            self.carry.copy_(task.carry)
            task.carry = self.carry
        if window.index == 0:
            self.carry.copy_(task.roll(self.carry))
        self.index.fill_(window.index)
        logged = task.is_logged()
        task.window_loss = self.graph(logged).clone()
        if logged:
            task.gradient_stats = {name: value.clone() for name, value in self.stats.items()}
        task.monitor.update(task.window_loss)
        return {"loss": task.window_loss}

    def _forward(self) -> tuple[Tensor, Tensor]:
        for buffer, part in zip(self.window, self.stream.at(self.index)):
            buffer.copy_(part)
        with self.trainer.precision_plugin.forward_context():
            loss, self.next = self.task.model.loss(*self.window, self.carry)
        return self.task.objective(loss), loss

    def _clip(self, optimizer, logged: bool) -> Callable[[], float | None]:
        from charrnn.training.task import CharTask  # which imports this module

        bound = bound_of_step(self.task, CharTask)

        def clip() -> float | None:
            self.carry.copy_(self.next.detach())  # backward has no more use for the old one
            self.next = None
            if bound is None:
                stats = self.task.clip(optimizer, self.trainer, logged)
            else:  # the step clips
                stats = before_clipping(self.task, bound, logged)
            self.stats = stats or self.stats
            return bound

        return clip
