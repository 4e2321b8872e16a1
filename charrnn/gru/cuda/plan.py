"""Which persistent kernels compute a size on a GPU, and when auto takes them; fixed tables.

B rows, H hidden size, padded as the kernels need it.
"""

import functools
import itertools
from dataclasses import dataclass, replace

import torch

from charrnn.gru.cuda import nvrtc
from charrnn.gru.cuda.cut import Cut

ROWS = 16
"""Rows that advance together, as many as the tensor cores' product has."""
LARGEST = 2048
"""The largest hidden size; beyond it the weights of 16 units do not stay on the chip."""
SMALL = 128
"""The largest hidden size whose weights stay in the registers of one multiprocessor."""
SPANS, LEAST_STEPS = 4, 16
"""Launches at most of a layer that runs beside another, and steps at least of each."""


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched.

    Attributes:
        grid: thread blocks.
        shared: bytes of shared memory.
        items: of 16 rows that a block goes round, at most.
        pause: clocks that a block waits before it asks for what others store; 0: until a first
            word has been seen.
    """

    cut: Cut
    grid: int
    shared: int
    items: int = 1
    pause: int = 0

    @property
    def parts(self) -> int:
        """Sums of gate gradients that a backward launch leaves: of 8 rows, or 8 of each item."""
        return self.grid if self.cut.small else 2 * (self.grid // self.cut.blocks)


@dataclass(frozen=True)
class Plan:
    """The kernels of both directions; what is saved between them does not depend on the cut.

    Attributes:
        pairs: whether those of two layers fit on the GPU together.
    """

    forward: Launch
    backward: Launch
    pairs: bool = False

    @property
    def cut(self) -> Cut:
        """Of the forward kernel; hidden size and variant are those of both."""
        return self.forward.cut

    def groups(self, layers: int) -> list[range]:
        """Return the layers that are computed together, two or one, the lowest first."""
        return [range(i, min(i + 2, layers)) for i in range(0, layers, 2)]

    def spans(self, steps: int, layers: int) -> list[slice]:
        """Return the steps of each launch of layers that are computed together.

        Of two layers one waits for a span of the other, and each launch costs some 5 us and reads
        the weights: with more spans than these the gain is below a hundredth of a step.
        """
        several = self.pairs and layers > 1
        count = max(1, min(SPANS, steps // LEAST_STEPS)) if several else 1
        ends = [steps * k // count for k in range(count + 1)]
        return [slice(*pair) for pair in itertools.pairwise(ends)]


@dataclass(frozen=True)
class Card:
    """What counts of a GPU: its compute capability, multiprocessors, and bytes of shared memory."""

    capability: tuple[int, int]
    multiprocessors: int
    shared: int


@functools.cache
def card(index: int) -> Card:
    """The GPU of an index."""
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    known = {(8, 0): 163, (8, 7): 163, (8, 6): 99, (8, 9): 99, (12, 0): 99, (12, 1): 99}
    shared = getattr(properties, "shared_memory_per_block_optin", 0)
    kilobytes = known.get(capability, 227 if capability >= (9, 0) else 48)
    return Card(capability, properties.multi_processor_count, shared or kilobytes << 10)


def padded(hidden: int, before: bool) -> int:
    """The hidden size of the kernels: the next multiple of 32, or of 128."""
    step = 128 if before and hidden > SMALL else 32
    return -(-hidden // step) * step


def fit(cut: Cut, rows: int, gpu: Card, forward: bool) -> Launch | None:
    """Return how a cut's kernel is launched; None if multiprocessors or memory are too few."""
    items = -(-rows // ROWS)
    groups = min(items, gpu.multiprocessors // cut.blocks)
    if not groups and not cut.small:
        return None
    grid, items = (2 * items, 1) if cut.small else (groups * cut.blocks, -(-items // groups))
    if items > 1:
        early = replace(cut, ahead=True)
        if (forward or early.slots) and shared(early, items, forward) <= gpu.shared:
            cut = early
    if (size := shared(cut, items, forward)) > gpu.shared:
        return None
    pause = pause_of(cut, rows, forward) if items == 1 else 0
    return Launch(cut, grid, size, items, pause)


def shared(cut: Cut, items: int, forward: bool) -> int:
    """Bytes of shared memory."""
    return cut.shared_forward(items) if forward else cut.shared_backward(items)


def find_pairs(hidden: int, rows: int, before: bool, hard: bool, gpu: Card) -> Plan | str:
    """Return the plan for several layers: two at once where each may have half of the GPU.

    Not where a block would then have several items: each step takes nearly twice as long with two.
    """
    half = replace(gpu, multiprocessors=gpu.multiprocessors // 2)
    found = find(hidden, rows, before, hard, half)
    if isinstance(found, Plan):
        launches = found.forward, found.backward
        fits = max(n.grid for n in launches) <= half.multiprocessors
        if fits and max(n.items for n in launches) == 1:
            return replace(found, pairs=True)
    return find(hidden, rows, before, hard, gpu)


@functools.cache
def find(hidden: int, rows: int, before: bool, hard: bool, gpu: Card) -> Plan | str:
    """Return the plan for a size, or why there is none."""
    hidden = padded(hidden, before)
    if gpu.capability < (8, 0):
        return f"the GPU's compute capability is {'.'.join(map(str, gpu.capability))}, below 8.0"
    if hidden > LARGEST:
        return f"weights of hidden_size={hidden} do not stay on the chip, at most {LARGEST} do"
    launches = []
    for forward in (True, False):
        # The two directions save in the same order only where both are small or neither is.
        for units in preferred_units(hidden, rows, gpu, forward):
            if found := fit(Cut(hidden, units, before, hard), rows, gpu, forward):
                launches.append(found)
                break
    if len(launches) == 2 and launches[0].cut.small == launches[1].cut.small:
        return Plan(*launches)
    return (
        f"hidden_size={hidden} with batch_size={rows} needs more than the GPU's"
        f" {gpu.multiprocessors} multiprocessors and {gpu.shared >> 10} KiB of shared memory"
    )


def rows_at_once(hidden: int, rows: int, before: bool, hard: bool, gpu: Card) -> int:
    """Return how many of the rows one plan takes: all, or a half, a quarter ... that fits."""
    some = rows
    while some > ROWS and isinstance(find(hidden, some, before, hard, gpu), str):
        some = -(-some // 2)
    return some


# The tables below were measured on an H100, T 512 and 128 (charrnn/benchmarks/GPU.md).


def preferred_units(hidden: int, rows: int, gpu: Card, forward: bool) -> tuple[int, ...]:
    """Return numbers of units a thread block, the fastest first.

    All of them where they are few; 16, or else 32, or else 64, with which all rows advance at once;
    else 32, which is also faster backward at H 512 with more than 32 rows (2.75 against 3.03 us a
    step).
    """
    if hidden <= SMALL:
        return (hidden,)
    if hidden > 1024:
        return (16,)
    items = -(-rows // ROWS)
    most = gpu.multiprocessors // items  # as many thread blocks as an item may have
    if hidden // 16 > most:
        wide = hidden // 32 > most >= hidden // 64 and hidden <= 512 and hidden % 64 == 0
        return (64, 32, 16) if wide else (32, 16)
    return (16, 32) if forward or hidden < 512 or rows <= 32 else (32, 16)


def pause_of(cut: Cut, rows: int, forward: bool) -> int:
    """Return the pause that was fastest where all rows advance at once.

    With 16 units a block; 0 with 32. At H 512, B 16: 1.75 us a step with 650 and 1.98 with 0.
    """
    if cut.units != 16:
        return 0
    if not forward:
        return 1000 if cut.hidden <= 256 and rows <= 16 else 0
    if rows <= 16:
        return 650
    if cut.hidden <= 256:
        return 800
    return 0 if cut.before else 1000


# What auto takes, measured on an H100 (charrnn/benchmarks/GPU.md). In float32 cuDNN is faster with
# few rows of a small hidden size, where it keeps the weights on the chip itself. Above H 1024 one
# size was measured, H 2048 with 64 rows: reset=before takes 13.1 ms there where cuDNN takes 17.2;
# more rows are cuDNN's, whose time grows less with them.
AUTO_SMALL, AUTO_FEW_ROWS = 64, 32
AUTO_LARGE, AUTO_SOME_ROWS = 1024, 64


def why_not_auto(hidden: int, rows: int | None, gpu: Card, low: bool = False) -> str | None:
    """Return why auto takes cuDNN for a size that it can compute; None where ours is faster.

    Args:
        low: whether products take 16-bit operands, under autocast; cuDNN then computes large layers
            in float16 (:func:`charrnn.gru.torch.takes_halves`).
    """
    if hidden <= AUTO_SMALL and rows is not None and rows <= AUTO_FEW_ROWS and not low:
        return f"cuDNN is faster in float32 at hidden_size up to {AUTO_SMALL} with few rows"
    if hidden > AUTO_LARGE and low:
        return f"cuDNN in float16 is faster at hidden_size above {AUTO_LARGE}"
    if padded(hidden, False) > AUTO_LARGE and (rows is None or rows > AUTO_SOME_ROWS):
        return f"cuDNN is faster at hidden_size above {AUTO_LARGE} with many rows"
    found = find(hidden, rows or ROWS, False, False, gpu)
    return found if isinstance(found, str) else None


@functools.cache
def kernels(cut: Cut, index: int):
    """The compiled kernels of a cut, on the GPU of an index. Raises nvrtc.Unavailable."""
    return nvrtc.module(cut.files, cut.settings, index)
