"""L2, clipping and an optimizer's step on a CPU, in one pass of the kernels over the parameters.

The numbers are those of ``torch.optim``, bit for bit (:func:`agrees` compares them before the first
use), in the optimizer's own state, which it saves and loads as always.
"""

import copy
import ctypes
import functools
import operator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from charrnn.gru import build

KINDS = {RMSprop: 0, SGD: 1, Adam: 2, AdamW: 3}
CLIPS = {None: 0, "value": 1, "norm": 2}
"""Numbers of ``csrc/optimizer.cpp``."""
MOMENTUM = "momentum_buffer"
STATE = {
    RMSprop: ("square_avg", MOMENTUM, "step"),
    SGD: (MOMENTUM, None, None),
    Adam: ("exp_avg", "exp_avg_sq", "step"),
    AdamW: ("exp_avg", "exp_avg_sq", "step"),
}
"""Names of a parameter's state; that of momentum is there where there is momentum."""
OTHER_FORMS = ("centered", "amsgrad", "maximize", "differentiable", "capturable", "fused")


class Settings(ctypes.Structure):
    """As in ``csrc/optimizer.cpp``."""

    NUMBERS = ("lr", "eps", "weight_decay", "momentum", "dampening", "nesterov", "alpha")
    _fields_ = [
        *((name, ctypes.c_long) for name in ("kind", "clip")),
        *((name, ctypes.c_double) for name in ("l2", "bound", *NUMBERS, "beta1", "beta2")),
    ]


class Row(ctypes.Structure):
    """A parameter, as in ``csrc/optimizer.cpp``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("value", "grad", "first", "second", "step")),
        *((name, ctypes.c_long) for name in ("size", "has_l2")),
    ]


class GradientStats(NamedTuple):
    """Of the gradients with L2, before clipping."""

    norm: float
    clipped: float
    """The share of elements that clipping by value changes."""


class FusedStep:
    """The step of an optimizer that :func:`supports` accepts."""

    def __init__(self, optimizer: Optimizer):
        (group,) = optimizer.param_groups
        self.optimizer, self.parameters = optimizer, group["params"]
        skipped = (None,) if group.get("momentum") else (None, MOMENTUM)
        names = [(i, n) for i, n in enumerate(STATE[type(optimizer)]) if n not in skipped]
        self.places, self.names = [i for i, _ in names], [name for _, name in names]
        self.rows = (Row * len(self.parameters))()
        self.views = list(self.rows)  # made by ctypes at each access
        self.kept: list[list[Tensor] | None] = [None] * len(self.parameters)
        """The state to which the rows point."""
        self.settings, self.values = Settings(), ()
        self.stats = (ctypes.c_double * 2)()
        self.size = sum(p.numel() for p in self.parameters)

    def __call__(
        self, l2: float = 0.0, bound: float | None = None, algorithm: str = "value"
    ) -> GradientStats | None:
        """Add l2 times each weight matrix to its gradient, clip, and step.

        Args:
            bound: of clipping; None for none.
            algorithm: whether elements are clipped to +-bound ("value") or the norm of all
                gradients together to the bound ("norm").

        Returns:
            None if nothing was done, because a parameter has no gradient or no state yet, or
            somebody has added a hook or a group of parameters. The optimizer's own step can.
        """
        if len(self.optimizer.param_groups) != 1 or has_hooks(self.optimizer):
            return None
        state, names = self.optimizer.state, self.names
        for number, (row, p, kept) in enumerate(zip(self.views, self.parameters, self.kept)):
            grad, own = p.grad, state.get(p, {})
            if grad is None or not grad.is_contiguous():
                return None
            if kept is None or not all(map(operator.is_, map(own.get, names), kept)):
                if not self._bind(number, own):
                    return None
            row.value, row.grad = p.data_ptr(), grad.data_ptr()
        self._set(l2, bound, algorithm)
        settings, threads = ctypes.byref(self.settings), torch.get_num_threads()
        if function()(settings, self.rows, len(self.rows), self.stats, threads):
            raise MemoryError("no memory for the optimizer's step")
        torch.autograd.graph.increment_version(self.parameters)
        self.optimizer._opt_called = True  # torch's schedulers warn where no step was made
        norm, beyond = self.stats
        return GradientStats(norm, beyond / self.size)

    def _set(self, l2: float, bound: float | None, algorithm: str) -> None:
        """Set the settings, where they are not those of the last step."""
        (group,) = self.optimizer.param_groups  # another dictionary after load_state_dict
        numbers = [float(group.get(name) or 0) for name in Settings.NUMBERS]
        values = (l2, bound or 0.0, *numbers, *map(float, group.get("betas", (0, 0))))
        if (algorithm, values) != self.values:
            self.values = algorithm, values
            clip = CLIPS[algorithm] if bound else 0
            self.settings = Settings(KINDS[type(self.optimizer)], clip, *values)

    def _bind(self, number: int, own: dict[str, Tensor]) -> bool:
        """Point a row to the state of its parameter; whether that has all of it."""
        row, p = self.views[number], self.parameters[number]
        tensors = [own.get(name) for name in self.names]
        if not all(isinstance(tensor, Tensor) and is_plain(tensor) for tensor in tensors):
            return False
        for place, tensor in zip(self.places, tensors):
            setattr(row, ("first", "second", "step")[place], tensor.data_ptr())
        row.size, row.has_l2 = p.numel(), p.dim() > 1
        self.kept[number] = tensors
        return True


def supports(optimizer: Optimizer) -> bool:
    """Whether :class:`FusedStep` does what the optimizer's own step does."""
    if type(optimizer) not in KINDS or len(optimizer.param_groups) != 1 or has_hooks(optimizer):
        return False
    (group,) = optimizer.param_groups
    if any(group.get(key) for key in OTHER_FORMS):
        return False
    if group.get("decoupled_weight_decay", False) != (type(optimizer) is AdamW):
        return False
    numbers = [group["lr"], group["weight_decay"], *group.get("betas", ())]
    if not all(isinstance(number, int | float) for number in numbers):  # they may be tensors
        return False
    return all(map(is_plain, group["params"])) and agrees(type(optimizer))


def has_hooks(optimizer: Optimizer) -> bool:
    """Whether a step of an optimizer calls hooks."""
    own = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    return any(own) or any((_global_optimizer_pre_hooks, _global_optimizer_post_hooks))


def is_plain(tensor: Tensor) -> bool:
    """Whether the kernel can read and write a tensor by its pointer."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()


@functools.cache
def function():
    """The function of ``csrc/optimizer.cpp``."""
    library = build.library()
    if roots := build.torch_function("vmsSqrt"):
        library.optimizer_roots(roots, build.torch_function("MKL_Set_Num_Threads_Local"))
    found = library.optimizer_step_f32
    pointer = ctypes.c_void_p
    found.argtypes = [pointer, pointer, ctypes.c_long, pointer, ctypes.c_int]
    return found


@functools.cache
def agrees(kind: type[Optimizer]) -> bool:
    """Whether some steps have the very numbers of torch's.

    Which sums torch fuses with products depends on the compiler that built it.
    """
    try:
        function()
    except build.BuildError:
        return False
    generator = torch.Generator().manual_seed(0)
    sizes = ((37, 45), (21,))  # whole vectors and the rest
    parameters = [torch.randn(size, generator=generator).requires_grad_() for size in sizes]
    options = {"momentum": 0.9} if kind in (RMSprop, SGD) else {}
    theirs = kind(parameters, lr=0.01, weight_decay=0.02, **options)

    def set_gradients(*optimizers: Optimizer) -> None:
        for index, size in enumerate(sizes):
            gradient = torch.randn(size, generator=generator)
            for optimizer in optimizers:
                optimizer.param_groups[0]["params"][index].grad = gradient.clone()

    set_gradients(theirs)
    theirs.step()
    ours = copy.deepcopy(theirs)
    fused = FusedStep(ours)
    for _ in range(3):
        set_gradients(theirs, ours)
        theirs.step()
        if fused() is None:
            return False
    return same_numbers(theirs, ours)


def same_numbers(one: Optimizer, other: Optimizer) -> bool:
    """Whether parameters and state of two optimizers are equal."""
    pairs = zip(one.param_groups[0]["params"], other.param_groups[0]["params"])
    return all(
        torch.equal(a, b) and all(map(torch.equal, state_of(one, a), state_of(other, b)))
        for a, b in pairs
    )


def state_of(optimizer: Optimizer, parameter: Tensor) -> list[Tensor]:
    """The tensors of a parameter's state."""
    return [v for v in optimizer.state[parameter].values() if isinstance(v, Tensor)]
