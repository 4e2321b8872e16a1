"""EvaluationWindows: one pass over a part of a text, with each character a target exactly once.

T time steps in a window, R rows, N characters.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from charrnn.data.stream import Window

PADDING = -100
"""Target that cross-entropy ignores."""
BURN_IN = 500
"""Characters of context read before each row. Between 4 and 512 rows of 111,540 characters (tiny
Shakespeare, H 128, L 2) the mean differed by 0.028 nats without, by 5e-6 with 100 and by 1e-6
with 250 characters."""


class EvaluationWindows:
    """One pass over a part of a text, in which each of its characters is a target exactly once.

    Row i + 1 starts where row i ends, as in :class:`charrnn.RowStream`, but the text is not a
    circle. With a burn-in (*warm*), the state of each row is computed from the text before it, so
    that results hardly depend on the number of rows; with a burn-in of 0 (*cold*) it is zero.

    Args:
        tokens: (N,) indices of the whole text, N at least 2.
        seq_len: T.
        begin, end: the part that contains the targets. The first character of a text is never a
            target, since it has no context.
        rows: R; None selects as many as leave at least 16 windows and four times the burn-in per
            row, at most 64, independent of the batch size in training.
        burn_in: number of characters read before each row, or as many of them as there are.
    """

    def __init__(
        self,
        tokens: Tensor,
        seq_len: int,
        begin: int = 1,
        end: int | None = None,
        rows: int | None = None,
        burn_in: int = BURN_IN,
    ):
        size = len(tokens)  # beyond which more changes nothing but the memory
        self.tokens, self.seq_len, self.burn_in = tokens, min(seq_len, size), min(burn_in, size)
        self.begin, self.end = max(1, begin), size if end is None else end
        count, seq_len = self.end - self.begin, self.seq_len
        rows = rows or max(1, min(64, count // max(16 * seq_len, 4 * burn_in)))
        self.rows = min(rows, -(-count // seq_len))
        self.length = -(-count // (self.rows * seq_len))
        self.starts = self.begin - 1 + torch.arange(self.rows) * (self.length * seq_len)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Window]:
        for index in range(self.length):
            offsets = self.starts + index * self.seq_len + torch.arange(self.seq_len + 1)[:, None]
            characters = self._read(offsets)
            targets = characters[1:].masked_fill(offsets[1:] >= self.end, PADDING)
            yield Window(characters[:-1], targets, index)

    def burn_in_parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the text before the rows, for the state at their start.

        Yields:
            Inputs (t, R) int64, t >= 0, and where (R,) bool a row begins with them: its state
            before them is the initial one. ``charrnn.models.contract.warm_state`` reads them.
        """
        # A row near the start of the text has less context, and starts later than the others.
        delays = (self.burn_in - self.starts).clamp(min=0)
        cuts = {*delays.tolist(), *range(0, self.burn_in, self.seq_len), self.burn_in}
        for cut, following in itertools.pairwise([*sorted(cuts), self.burn_in]):
            offsets = self.starts - self.burn_in + torch.arange(cut, following)[:, None]
            yield self._read(offsets), delays >= cut

    def _read(self, offsets: Tensor) -> Tensor:
        """Return the characters at offsets; values outside the text are arbitrary."""
        return self.tokens[offsets.clamp(0, len(self.tokens) - 1)].long()
