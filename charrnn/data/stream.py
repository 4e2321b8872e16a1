"""RowStream: the corpus as a circle, read in B evenly spaced rows in parallel.

T time steps in a window, B rows of this process, R rows of all processes, N characters,
P windows in a pass.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from charrnn.errors import check


class Window(NamedTuple):
    """T time steps of B rows: inputs, and as targets the characters after them."""

    inputs: Tensor
    """(T, B) int64."""
    targets: Tensor
    """(T, B) int64."""
    index: int
    """Number of the window in its pass, 0 to P - 1."""


class RowStream:
    """An endless iterable of windows that starts at the stored position.

    With R = batch_size * world_size and n = ceil(N / T) sequences, a pass has P = ceil(n / R)
    windows, and len(stream) == P. Row i starts at character i P T and covers P T characters, so
    that row i + 1 starts where row i stops; every index is taken modulo N.

    Args:
        tokens: (N,) indices, of any integer type; a memory map is read on demand.
        batch_size: B.
        seq_len: T.
        rank: this process, which owns rows [rank B, (rank + 1) B).
        world_size: number of processes.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self, tokens: Tensor, batch_size: int, seq_len: int, rank: int = 0, world_size: int = 1
    ):
        check("batch_size", batch_size, batch_size >= 1, "a whole number, at least 1")
        check("seq_len", seq_len, seq_len >= 1, "a whole number, at least 1")
        check("world_size", world_size, world_size >= 1, "a whole number, at least 1")
        check("rank", rank, 0 <= rank < world_size, f"at least 0 and below {world_size}")
        check(
            "tokens", tuple(tokens.shape), tokens.dim() == 1 and len(tokens) > 0, "1-D, not empty"
        )
        self.tokens, self.batch_size, self.seq_len = tokens, batch_size, seq_len
        sequences = -(-len(tokens) // seq_len)
        self._windows = -(-sequences // (batch_size * world_size))
        rows = torch.arange(rank * batch_size, (rank + 1) * batch_size)
        # Offsets of the inputs of window 0 and of the character after them, (T + 1, B).
        self._offsets = rows * (self._windows * seq_len) + torch.arange(seq_len + 1)[:, None]
        self._start = rank * batch_size * self._windows * seq_len
        # Windows before this one end before the text does, in all rows: no index is taken modulo N.
        end = self._start + (batch_size - 1) * self._windows * seq_len
        self._whole = (len(tokens) - 1 - end) // seq_len if tokens.is_contiguous() else 0
        self._next = 0
        self._passes = 0
        self.filled: tuple[Tensor, Tensor] | None = None
        """Buffers (T, B) that a CUDA graph fills; windows then hold these."""

    def __len__(self) -> int:
        return self._windows

    def __iter__(self) -> Iterator[Window]:
        while True:
            index = self._next
            inputs, targets = self.filled or self.at(index)
            wraps = index + 1 == self._windows
            self._next = 0 if wraps else index + 1
            self._passes += wraps
            yield Window(inputs, targets, index)

    def at(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets (T, B) of the window of an index."""
        if isinstance(index, int) and index < self._whole:
            size, strides = (self.seq_len + 1, self.batch_size), (1, self._windows * self.seq_len)
            start = self.tokens.storage_offset() + self._start + index * self.seq_len
            rows = self.tokens.as_strided(size, strides, start)
            characters = rows.to(torch.int64, copy=True, memory_format=torch.contiguous_format)
        else:
            offsets = (self._offsets + index * self.seq_len) % len(self.tokens)
            characters = self.tokens[offsets].long()
        return characters[:-1], characters[1:]

    def to(self, device: torch.device) -> "RowStream":
        """Move the tokens to a device, so that windows are made there; keeps the position."""
        self.tokens, self._offsets = self.tokens.to(device), self._offsets.to(device)
        return self

    def state_dict(self) -> dict[str, int]:
        """Return the position: the index of the next window and the number of finished passes."""
        return {"window": self._next, "passes": self._passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a position. Raises InputError if a pass has no such window."""
        window = state["window"]
        check(
            "window", window, 0 <= window < self._windows, f"at least 0 and below {self._windows}"
        )
        self._next, self._passes = window, state["passes"]
