"""Parts of a window's CUDA graph that need no GPU: what clips gradients; garbage collection."""

import contextlib
import gc
from types import SimpleNamespace

import pytest
import torch

from charrnn.training.gradients import bound_of_step
from charrnn.training.graphs import StepGraph
from charrnn.training.task import CharTask


class Own(CharTask):
    def clip(self, optimizer, trainer, logged):
        return {}


def test_which_tasks_leave_clipping_to_the_step(monkeypatch):
    for kind in (CharTask, Own):
        task = kind(torch.nn.Linear(1, 1), torch.optim.RMSprop, lambda optimizer: None)
        for bound, algorithm in ((0.5, "value"), (0.5, "norm"), (0.5, None), (None, "value")):
            settings = {"gradient_clip_val": bound, "gradient_clip_algorithm": algorithm}
            monkeypatch.setattr(kind, "trainer", SimpleNamespace(**settings), raising=False)
            left = kind is CharTask and bound and algorithm == "value"
            assert bound_of_step(task, CharTask) == (bound if left else None)


def test_optimizers_without_a_pass_of_ours_clip_first():
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([1.0, -9, torch.nan])
    graph = StepGraph.__new__(StepGraph)  # which would ask for a GPU
    graph.parameters, graph.optimizer = [p], torch.optim.SGD([p], lr=1.0)
    graph._update(2.0)
    assert p.tolist()[:2] == [-1, 2] and p.isnan().sum() == 1 and p.grad[1] == -2


def test_nothing_is_collected_during_a_capture(monkeypatch):
    """Not an earlier graph, which would end it; collection goes on afterwards, if there was any."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda *args, **settings: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "default_generators", [torch.Generator()])
    graph = StepGraph.__new__(StepGraph)
    graph.losses = []
    graph.stream = SimpleNamespace(device=SimpleNamespace(index=0))
    collects = []
    graph._step = lambda clip: collects.append(gc.isenabled())
    graph.graphs = []
    graph._capture(None)
    assert collects == [False] and gc.isenabled()
    gc.disable()
    try:
        graph.graphs = []
        graph._capture(None)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_rehearsal_that_fails_leaves_no_trace(monkeypatch):
    """The run goes on without a graph, with the weights and the optimizer's state of before."""

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    p, buffer = torch.nn.Parameter(torch.ones(2)), torch.zeros(1)
    graph = StepGraph.__new__(StepGraph)
    graph.parameters, graph.stream = [p], Stream()
    graph.optimizer = torch.optim.SGD([p], lr=1.0, momentum=0.9)

    def step(clip):
        p.grad = torch.ones(2)
        graph.optimizer.step()
        buffer.add_(1)
        raise RuntimeError("no kernel")

    graph._step = step
    with pytest.raises(RuntimeError, match="no kernel"):
        graph._rehearse([None], [buffer], torch.device("cpu"))
    assert p.tolist() == [1, 1] and p.grad is None and buffer.item() == 0
    assert graph.optimizer.state[p]["momentum_buffer"].tolist() == [0, 0]
