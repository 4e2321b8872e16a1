"""Finds work on two streams that touches the same memory in no certain order; streams are counted.

Every operation of torch and every emulated kernel says which bytes it reads and writes, on which
lane, and when by the lane's count; a lane knows up to which count of the other it has waited.
"""

import contextlib

import torch
from gru import emulator
from torch.utils._python_dispatch import TorchDispatchMode

from charrnn.gru.cuda import loss, many, nvrtc, stack

WRITTEN = {
    # Numbers of arguments. All launches of a pair write the same into scale, which is not here.
    "gru_forward": range(6, 11),  # and of argument 5 all states but the first
    "gru_backward": range(6, 9),
    "gather_rows": [2],
    "sum_rows_f16": [2],
    "one_hot": [1],
    "largest_parts": [3],
    "largest_of_parts": [1],
    **dict.fromkeys((f"cross_entropy_{most}" for most in (128, 512, "any")), range(3, 7)),
    "sum_parts": [1, 2],
    "scale_weight": [2, 3],
    "tanh_table": [2],
    "tanh_table_backward": [2, 3],
}


class Races(TorchDispatchMode):
    """A context that collects races in ``found``, while :class:`charrnn.gru.cuda.lanes.Lanes` is
    replaced by :meth:`lanes`.

    Args:
        waits: False for lanes that wait for nothing, whose races must be found.
    """

    def __init__(self, monkeypatch, waits: bool = True):
        super().__init__()
        self.lane, self.now, self.waits = 0, [[0, 0], [0, 0]], waits
        self.touched, self.alive, self.found = [], [], []
        for module in (stack, loss):
            monkeypatch.setattr(module, "Lanes", lambda device: Lanes(self))
        launch, launch_many = emulator.Module.launch, many.launch

        def watched(module, name, grid, *args, **settings):
            if name in WRITTEN:
                self.begin(name)
                for i, tensor in enumerate(args):
                    if isinstance(tensor, torch.Tensor) and tensor is not nvrtc.status():
                        self.touch(tensor, i in WRITTEN[name])
                if name == "gru_forward":
                    self.touch(args[5][1:], True)
            launch(module, name, grid, *args, **settings)

        def watched_many(name, rows, *args):
            self.begin(name)
            for a, b, c, d, _ in rows:
                for tensor, writes in zip((a, b, c, d), (True, name == "rmsprop", True, True)):
                    self.touch(tensor, writes)
            for tensor in args:
                if isinstance(tensor, torch.Tensor):
                    self.touch(tensor, False)
            launch_many(name, rows, *args)

        monkeypatch.setattr(emulator.Module, "launch", watched)
        monkeypatch.setattr(many, "launch", watched_many)

    def begin(self, name):
        self.name = name
        self.now[self.lane][self.lane] += 1

    def touch(self, tensor, writes):
        """Note an access, and those of the other lane that may come before or after it."""
        if tensor is None or not tensor.numel():
            return
        self.alive.append(tensor)
        begin = tensor.data_ptr()
        extent = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()))
        end = begin + (extent + 1) * tensor.element_size()
        known = self.now[self.lane]
        for a, z, lane, count, wrote, name in self.touched:
            other = lane != self.lane and count > known[lane]
            if other and (writes or wrote) and a < end and begin < z:
                self.found.append((name, self.name))
        self.touched.append((begin, end, self.lane, known[self.lane], writes, self.name))

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = operation(*args, **kwargs)
        schema = operation._schema
        if any(r.alias_info and not r.alias_info.is_write for r in schema.returns):
            return made  # a view
        self.begin(operation.__name__)
        given = {a.name: v for a, v in zip(schema.arguments, args)} | kwargs
        for argument in schema.arguments:
            writes = argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tensors(given.get(argument.name)):
                self.touch(tensor, writes)
        for tensor in tensors(made):
            self.touch(tensor, True)
        return made


def tensors(value):
    """Those of an argument or a result."""
    if isinstance(value, torch.Tensor):
        return [value]
    return (
        [t for t in value if isinstance(t, torch.Tensor)]
        if isinstance(value, (list, tuple))
        else []
    )


class Lanes:
    """As :class:`charrnn.gru.cuda.lanes.Lanes`."""

    both = True

    def __init__(self, races: Races):
        self.races = races
        self.wait(1, self.mark(0))

    @contextlib.contextmanager
    def on(self, lane):
        before, self.races.lane = self.races.lane, lane
        yield
        self.races.lane = before

    def mark(self, lane):
        return list(self.races.now[lane])

    def wait(self, lane, mark):
        if self.races.waits:
            self.races.now[lane] = [*map(max, self.races.now[lane], mark)]

    def join(self):
        self.wait(0, self.mark(1))
