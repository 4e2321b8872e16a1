"""How a persistent kernel of ``csrc`` is cut into thread blocks, registers and shared memory.

H hidden size. A group of H / U thread blocks keeps W_hh on the chip, U units each, and advances
rows by sixteens, the items; where they are more than there are groups, a group goes round several.
"""

from dataclasses import dataclass

COMMON = ("instructions.cuh", "layout.cuh", "gates.cuh", "products.cuh")
WARPS = 8
"""Of a thread block."""
SHARED = 227 << 10
"""Bytes of shared memory that a thread block has at most, on any GPU."""
AHEAD = 4
"""Steps whose inputs are in shared memory or on their way, at small hidden sizes."""


@dataclass(frozen=True)
class Cut:
    """Kernels for one hidden size.

    Attributes:
        hidden: H, a multiple of 32, and above ``SMALL`` with the reset before the product of 128.
        units: U, those of a thread block: 16, 32 or 64, or all of them where they are few.
        ahead: whether a group with several items brings the next one's rows in advance.
    """

    hidden: int
    units: int
    before: bool
    hard: bool
    ahead: bool = False

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
    def chunk(self) -> int:
        """k-blocks of gate gradients that a warp asks for at once."""
        sizes = (4, 3, 2, 1) if self.before or self.ahead else (6, 5, 4, 3, 2, 1)
        return next(c for c in sizes if all(d % min(c, d) == 0 for d in self.depths))

    @property
    def slots(self) -> int:
        """k-blocks of gate gradients that a warp has in shared memory, brought in advance."""
        if self.before or not self.ahead:
            return 0
        left = (SHARED - self.shared_backward(4, 0)) // (WARPS * 1024)
        chunk = min(self.chunk, self.depths[0])
        return max(0, min(left, self.depths[0]) // chunk * chunk)

    @property
    def numbers(self) -> int:
        """Numbers that the threads of a block own for a step, of a small hidden size."""
        return 4 * -(-(self.hidden // 16) // WARPS) * 32 * WARPS

    @property
    def settings(self) -> tuple[tuple[str, object], ...]:
        """What the sources are compiled with."""
        if self.small:
            values = {"U": 16, "NG": 2, "KRF": 1, "KRB": 1, "CHUNK": 1, "SLOTS": 0}
        else:
            kept = dict(zip(("KRF", "KRB"), self.kept))
            values = {"U": self.units, "NG": self.beside, **kept}
            values |= {"CHUNK": self.chunk, "SLOTS": self.slots}
        values |= {"H": self.hidden, "AHEAD": int(self.ahead), "HARD": int(self.hard)}
        return tuple(values.items())

    @property
    def files(self) -> tuple[str, ...]:
        """The sources."""
        name = "before" if self.before else "after"
        if self.small:
            return (*COMMON, "small.cuh", f"small_{name}.cu")
        return (*COMMON, f"{name}_forward.cu", f"{name}_backward.cu")

    # Bytes of shared memory: weights that are not in registers, rows that were brought, partial
    # sums twice, what threads own of each item, and the inputs of two items.

    def shared_forward(self, items: int) -> int:
        if self.small:
            return 2 * (self.hidden // 32) * 512 + AHEAD * 3 * self.numbers * 4
        sums = (2 if self.before else 3) * self.tiles
        weights = WARPS * (self.depth - self.kept[0]) * 3 * self.tiles * 512
        brought = WARPS // self.beside * self.depth * 1024 * (2 if self.ahead else 1)
        owned = items * 2048 * (3 if self.before else 1)
        return weights + brought + 16 * sums * 512 + self.own * (
            owned + 512 * (2 if self.before else 3) * 8
        )  # fmt: skip

    def shared_backward(self, items: int, slots: int | None = None) -> int:
        if self.small:
            parts = 3 if self.before else 6
            return parts * (self.hidden // 32) * 512 + AHEAD * self.numbers * (8 + 4)
        left = sum(d - min(d, self.kept[1]) for d in self.depths)
        weights = WARPS * left * (self.units // 8) * 512
        brought = WARPS * (self.slots if slots is None else slots) * 1024
        owned = (items * 2048 * 3 + 3 * 2048) if self.before else (items * 2048 + 4 * 2048)
        return weights + brought + 16 * (self.units // 8) * 512 + self.own * (owned + 512 * 28)
