"""How the persistent kernels of ``csrc`` are cut for a size and a GPU, and when auto takes them.

B rows, H hidden size, padded as the kernels need it. A group of H / U thread blocks keeps W_hh on
the chip, U units each, and advances rows by sixteens; where they are more than there are groups, a
group goes round several.
"""

import functools
from dataclasses import dataclass

import torch

from charrnn.gru.cuda import nvrtc

COMMON = ("instructions.cuh", "layout.cuh", "gates.cuh", "products.cuh")
ROWS = 16
"""Rows that advance together, as many as the tensor cores' product has."""
WARPS = 8
"""Of a thread block."""
LARGEST = 2048
"""The largest hidden size; beyond it the weights of 16 units do not stay on the chip."""
SMALL = 128
"""The largest hidden size whose weights stay in the registers of one multiprocessor."""
AHEAD = 4
"""Steps whose inputs are in shared memory or on their way, at small hidden sizes."""
NEVER = 1 << 20


@dataclass(frozen=True)
class Cut:
    """Kernels for one hidden size.

    Attributes:
        hidden: H, a multiple of 32, and above ``SMALL`` with the reset before the product of 128.
        units: U, those of a thread block: 16 or 32, or all of them where they are few.
    """

    hidden: int
    units: int
    before: bool
    hard: bool

    @property
    def small(self) -> bool:
        """Whether a thread block has all units, and exchanges nothing with others."""
        return self.units == self.hidden

    @property
    def beside(self) -> int:
        """Warps side by side over the units in the forward product; the others split k."""
        return 2 if self.units == 16 or self.hidden > 512 else 4

    @property
    def blocks(self) -> int:
        """Thread blocks of a group."""
        return self.hidden // self.units

    @property
    def tiles(self) -> int:
        """Tiles of 8 units that a warp computes in the forward product."""
        return self.units // 8 // self.beside

    @property
    def own(self) -> int:
        """Pairs of (8 units, 8 rows) whose elementwise work is a warp's."""
        return -(-2 * (self.units // 8) // WARPS)

    @property
    def depth(self) -> int:
        """k-blocks of 32 of a warp in the forward product."""
        return -(-(self.hidden // 32) // (WARPS // self.beside))

    @property
    def depths(self) -> list[int]:
        """k-blocks of 32 of a warp in each backward product."""
        parts = (2, 1) if self.before else (3,)
        return [-(-part * (self.hidden // 32) // WARPS) for part in parts]

    @property
    def kept(self) -> tuple[int, int]:
        """k-blocks of weights that stay in registers, forward and backward: 112 of them or so."""
        forward = min(self.depth, 112 // (12 * self.tiles))
        most, width = 128 if self.before else 112, self.units // 8 * 4
        backward = max(
            k for k in range(100) if not k or sum(min(k, d) for d in self.depths) * width <= most
        )
        return forward, backward

    @property
    def numbers(self) -> int:
        """Numbers that the threads of a block own for a step, of a small hidden size."""
        return 4 * -(-(self.hidden // 16) // WARPS) * 32 * WARPS

    @property
    def settings(self) -> tuple[tuple[str, object], ...]:
        """What the sources are compiled with."""
        if self.small:
            values = {"H": self.hidden, "U": 16, "NG": 2, "KRF": 1, "KRB": 1, "CHUNK": 1}
            return tuple((values | {"HARD": int(self.hard)}).items())
        sizes = (4, 3, 2, 1) if self.before else (6, 5, 4, 3, 2, 1)
        chunk = next(c for c in sizes if all(d % min(c, d) == 0 for d in self.depths))
        kept = dict(zip(("KRF", "KRB"), self.kept))
        values = {"H": self.hidden, "U": self.units, "NG": self.beside, **kept, "CHUNK": chunk}
        return tuple((values | {"HARD": int(self.hard)}).items())

    @property
    def files(self) -> tuple[str, ...]:
        """The sources."""
        name = "before" if self.before else "after"
        if self.small:
            return (*COMMON, "small.cuh", f"small_{name}.cu")
        return (*COMMON, f"{name}_forward.cu", f"{name}_backward.cu")

    # Bytes of shared memory: weights that are not in registers, rows that were brought, partial
    # sums twice, what threads own of each item, and the inputs of two items.

    def shared_forward(self, items: int, ahead: bool) -> int:
        if self.small:
            return 2 * (self.hidden // 32) * 512 + AHEAD * 3 * self.numbers * 4
        sums = (2 if self.before else 3) * self.tiles
        weights = WARPS * (self.depth - self.kept[0]) * 3 * self.tiles * 512
        brought = WARPS // self.beside * self.depth * 1024 * (2 if ahead else 1)
        owned = items * 2048 * (3 if self.before else 1)
        return weights + brought + 16 * sums * 512 + self.own * (
            owned + 512 * (2 if self.before else 3) * 8
        )  # fmt: skip

    def shared_backward(self, items: int, ahead: bool) -> int:
        if self.small:
            parts = 3 if self.before else 6
            return parts * (self.hidden // 32) * 512 + AHEAD * self.numbers * (8 + 4)
        left = sum(d - min(d, self.kept[1]) for d in self.depths)
        weights = WARPS * left * (self.units // 8) * 512
        brought = WARPS * self.depths[0] * 1024 if ahead and not self.before else 0
        owned = items * 2048 * (3 if self.before else 1)
        return weights + brought + 16 * (self.units // 8) * 512 + self.own * (owned + 512 * 28)


@dataclass(frozen=True)
class Plan:
    """A cut for so many rows on a GPU.

    Attributes:
        grid: thread blocks.
        ahead: (forward, backward), from how many items on the next one's rows are copied in
            advance.
        shared: bytes of shared memory, forward and backward.
        pause: clocks that a block waits before it asks for what others store; 0: until a first
            word has been seen.
    """

    cut: Cut
    grid: int
    ahead: tuple[int, int]
    shared: tuple[int, int]
    pause: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Card:
    """What counts of a GPU."""

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


def fit(cut: Cut, rows: int, gpu: Card) -> Plan | None:
    """A cut's plan; None where multiprocessors or shared memory do not do."""
    items = -(-rows // ROWS)
    if cut.small:
        shared = cut.shared_forward(1, False), cut.shared_backward(1, False)
        return Plan(cut, 2 * items, (NEVER, NEVER), shared) if max(shared) <= gpu.shared else None
    groups = min(items, gpu.multiprocessors // cut.blocks)
    if not groups:
        return None
    items = -(-items // groups)
    ahead, shared = [], []
    for size in (cut.shared_forward, cut.shared_backward):
        # With two items the next one's rows would be asked for before they are there.
        early = items >= 3 and size(items, True) <= gpu.shared
        ahead.append(items if early else NEVER)
        shared.append(size(items, early))
    if max(shared) > gpu.shared:
        return None
    return Plan(cut, groups * cut.blocks, tuple(ahead), tuple(shared))


@functools.cache
def find(hidden: int, rows: int, before: bool, hard: bool, gpu: Card) -> Plan | str:
    """The plan for a size, or why there is none."""
    hidden = padded(hidden, before)
    if gpu.capability < (8, 0):
        return f"the GPU's compute capability is {'.'.join(map(str, gpu.capability))}, below 8.0"
    if hidden > LARGEST:
        return f"weights of hidden_size={hidden} do not stay on the chip, at most {LARGEST} do"
    for units in preferred_units(hidden, rows, gpu):
        if found := fit(Cut(hidden, units, before, hard), rows, gpu):
            return found
    return (
        f"hidden_size={hidden} with batch_size={rows} needs more than the GPU's"
        f" {gpu.multiprocessors} multiprocessors and {gpu.shared >> 10} KiB of shared memory"
    )


def preferred_units(hidden: int, rows: int, gpu: Card) -> tuple[int, ...]:
    """All units in a thread block where they are few; 16 as long as all rows then advance at once,
    else 32."""
    if hidden <= SMALL:
        return (hidden, 16)
    if hidden > 1024:
        return (16,)
    items = -(-rows // ROWS)
    return (16, 32) if items * (hidden // 16) <= gpu.multiprocessors else (32, 16)


# What auto takes, measured on an H100 (charrnn/benchmarks/GPU.md). cuDNN is faster with few rows of
# a small hidden size, where it keeps the weights on the chip itself. Above H 1024 one size was
# measured, H 2048 with 64 rows: reset=before takes 13.1 ms there where cuDNN takes 17.2; more rows
# are cuDNN's, whose time grows less with them.
AUTO_SMALL, AUTO_FEW_ROWS = 128, 32
AUTO_LARGE, AUTO_SOME_ROWS = 1024, 64


def why_not_auto(hidden: int, rows: int | None, gpu: Card) -> str | None:
    """Return why auto takes cuDNN for a size that it can compute; None where ours is faster."""
    if hidden <= AUTO_SMALL and rows is not None and rows <= AUTO_FEW_ROWS:
        return f"cuDNN is faster at hidden_size up to {AUTO_SMALL} with few rows"
    if padded(hidden, False) > AUTO_LARGE and (rows is None or rows > AUTO_SOME_ROWS):
        return f"cuDNN is faster at hidden_size above {AUTO_LARGE} with many rows"
    found = find(hidden, rows or ROWS, False, False, gpu)
    return found if isinstance(found, str) else None


@functools.cache
def kernels(cut: Cut, index: int):
    """The compiled kernels of a cut, on the GPU of an index. Raises nvrtc.Unavailable."""
    return nvrtc.module(cut.files, cut.settings, index)
