"""Two layers at once: a second stream of a GPU beside the current one, and what waits for what."""

import contextlib
import functools
from collections.abc import Iterator

import torch

for_graph = False
"""Whether :func:`two_lanes` is on, in all threads: backward has its own."""


@contextlib.contextmanager
def two_lanes() -> Iterator[None]:
    """A context in which lanes are two on a GPU: where a CUDA graph is rehearsed and captured.

    Without a graph the host is what most sizes wait for, and each launch and event costs it some
    10 us. A rehearsal has to do just what is captured: cuBLAS loads kernels for each shape and
    memory for each stream, which a capture forbids.
    """
    global for_graph
    before, for_graph = for_graph, True
    try:
        yield
    finally:
        for_graph = before


@functools.cache
def second_stream(first: torch.cuda.Stream) -> torch.cuda.Stream:
    """The one beside a stream: always the same, since it has memory of its own.

    It comes first where both want multiprocessors: what runs there is waited for.
    """
    return torch.cuda.Stream(first.device, priority=-1)


class Lanes:
    """The current stream, lane 0, and until :meth:`join` a second one, lane 1.

    What was asked for before runs before either, what is asked for after :meth:`join` after both.
    They are branches of the CUDA graph that is captured. Without one, and on a CPU, where kernels
    are emulated, all runs in the order in which it is asked for.

    ``both`` says whether work should be cut for two.

    Memory that is used on both lanes must be held until :meth:`join`: torch's allocator gives what
    is freed to the next tensor of the lane that it was made on, whatever the other one does.
    """

    def __init__(self, device: torch.device):
        self.streams, self.both = [], for_graph
        if device.type == "cuda" and for_graph:
            first = torch.cuda.current_stream(device)
            self.streams = [first, second_stream(first)]
            self.streams[1].wait_stream(first)

    def on(self, lane: int) -> contextlib.AbstractContextManager:
        """A context whose work runs on a lane."""
        return torch.cuda.stream(self.streams[lane]) if self.streams else contextlib.nullcontext()

    def mark(self, lane: int) -> torch.cuda.Event | None:
        """What has been asked of a lane so far, to :meth:`wait` for."""
        return self.streams[lane].record_event() if self.streams else None

    def wait(self, lane: int, mark: torch.cuda.Event | None) -> None:
        """Have a lane go on after what was marked."""
        if mark is not None:
            self.streams[lane].wait_event(mark)

    def join(self) -> None:
        """Have the current stream wait for the other one."""
        if self.streams:
            self.streams[0].wait_stream(self.streams[1])
