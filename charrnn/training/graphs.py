"""The step of a window as a CUDA graph: one launch in place of hundreds, which bound small models.

T time steps, B rows, L layers, H hidden size.

What changes from window to window is read from device memory: the window's number, the carry, the
learning rates. Every window is a replay, the first one too, so that a run that is resumed gives the
numbers of one that is not.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from charrnn.gru.cuda import lanes, rmsprop
from charrnn.training.gradients import clip_by_value

OPTIMIZERS = (RMSprop, Adam, AdamW, SGD)
"""Those known to step without a transfer to the host."""
FUSED = {"fused": True, "foreach": False}


def unsupported(optimizer: Optimizer) -> str | None:
    """Why an optimizer's step cannot be captured; None where it can."""
    if type(optimizer) not in OPTIMIZERS:
        return f"{type(optimizer).__name__} is not known to run in one"
    if any(group.get("dampening") for group in optimizer.param_groups):
        return "the first step of SGD with dampening is another"
    return None


class StepGraph:
    """Forward, backward, clipping and the optimizer's step, captured.

    Args:
        forward: makes what is differentiated and what is reported, from tensors that stay where
            they are.
        clip: what happens between backward and the optimizer's step, one for each graph: they
            differ in nothing else. A bound that is returned is left to the step: it clips
            gradients to +- it, for RMSProp in its one pass, and they hold what was clipped.
        buffers: tensors that forward changes besides the parameters.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        forward: Callable[[], tuple[Tensor, Tensor]],
        clip: Iterable[Callable[[], float | None]] = (lambda: None,),
        buffers: Iterable[Tensor] = (),
    ):
        self.optimizer, self.forward = optimizer, forward
        groups = optimizer.param_groups
        self.parameters = [p for group in groups for p in group["params"]]
        device = self.parameters[0].device
        self.stream = torch.cuda.Stream(device)
        self.rates = [torch.full((), float(group["lr"]), device=device) for group in groups]
        self.written = [float(group["lr"]) for group in groups]
        settings = [dict(group) for group in groups]
        self.graphs, self.losses = [], []
        self.update: Callable[[float | None], object] = self._update
        clips = list(clip)
        try:
            for group, rate in zip(groups, self.rates):
                # Forms of the step that take the learning rate from the device.
                if "capturable" in group:
                    group["capturable"] = True
                if type(optimizer) is not RMSprop:  # which has no fused form
                    group.update(FUSED)
                group["lr"] = rate
            with lanes.two_lanes():
                self._rehearse(clips, list(buffers), device)
                for each in clips:
                    self._capture(each)
        finally:
            for group, before in zip(groups, settings):
                for key in ("lr", "capturable", *FUSED):
                    if key in before:
                        group[key] = before[key]

    def __call__(self, which: int = 0) -> Tensor:
        """Replay one of the graphs. Returns what is reported, until the next replay."""
        for i, group in enumerate(self.optimizer.param_groups):
            if group["lr"] != self.written[i]:
                self.rates[i].fill_(group["lr"])
                self.written[i] = group["lr"]
        self.graphs[which].replay()
        return self.losses[which]

    def _update(self, bound: float | None) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if bound is not None and gradients:
            clip_by_value(gradients, bound)
        self.optimizer.step()

    def _step(self, clip: Callable[[], float | None]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        objective, reported = self.forward()
        objective.backward()
        self.update(clip())
        return reported.detach()

    def _rehearse(self, clips, buffers: list[Tensor], device: torch.device) -> None:
        """Steps that leave no trace: kernels are compiled, the optimizer makes its state."""
        state = self.optimizer.state
        for parameter in self.parameters:
            for key, value in state.get(parameter, {}).items():
                if torch.is_tensor(value):
                    state[parameter][key] = value.to(device)  # a step count may be on the host
        kept = [(tensor, tensor.detach().clone()) for tensor in [*self.parameters, *buffers]]
        before = {
            p: {k: v.clone() for k, v in state[p].items() if torch.is_tensor(v)}
            for p in self.parameters
            if p in state
        }
        random = torch.cuda.get_rng_state(device)
        stream = self.stream
        stream.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(stream):
                for _ in range(2):
                    for clip in clips:
                        self._step(clip)
                        if rmsprop.supports(self.optimizer):  # which its first step has made so
                            step = functools.partial(rmsprop.step, self.optimizer, self.rates)
                            self.update = step
        finally:  # after an error too: the run goes on without a graph
            torch.cuda.current_stream(device).wait_stream(stream)
            torch.cuda.set_rng_state(random, device)
            with torch.no_grad():
                for tensor, value in kept:
                    tensor.copy_(value)
                for parameter in self.parameters:
                    for key, value in state.get(parameter, {}).items():
                        if torch.is_tensor(value):
                            old = before.get(parameter, {}).get(key)
                            value.zero_() if old is None else value.copy_(old)
            self.optimizer.zero_grad(set_to_none=True)

    def _capture(self, clip: Callable[[], float | None]) -> None:
        graph = torch.cuda.CUDAGraph()
        pool = self.graphs[0].pool() if self.graphs else None  # they never run at once
        generator = torch.cuda.default_generators[self.stream.device.index]
        state = generator.get_state()
        try:
            with nothing_collected(), torch.cuda.graph(graph, pool=pool, stream=self.stream):
                loss = self._step(clip)
        except RuntimeError:  # the generator would go on believing that it is captured
            fresh = torch.Generator(generator.device)
            fresh.set_state(state)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())
            raise
        self.graphs.append(graph)
        self.losses.append(loss)


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """A context without garbage collection, which comes before it: where a graph is captured.

    A CUDA graph that is collected meanwhile, such as an earlier model's, would end the capture with
    an error (https://github.com/pytorch/pytorch/pull/161037).
    """
    gc.collect()
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
