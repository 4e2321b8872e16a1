"""EvaluationWindows: one pass over a part of a text, in which each character is a target once.

T time steps in a window, R rows, N characters, L layers, H hidden size.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from charrnn.data.stream import Window

PADDING = -100  # what cross_entropy ignores
BURN_IN = 500
"""Characters that a row is read in over. Between 4 and 512 rows of 111,540 characters (of tiny
Shakespeare, H 128, L 2) the means differed by 0.028 nats without, 5e-6 with 100, 1e-6 with 250."""


class EvaluationWindows:
    """One pass over a part of a text, in which each of its characters is a target exactly once.

    Row i + 1 begins where row i ends, as in :class:`charrnn.RowStream`; but nothing comes from
    around the circle. *Warm*, each row is read in from before its start, so that the figures hardly
    depend on the number of rows; *cold*, with a burn-in of 0, from a zero state.

    Args:
        tokens: (N,) indices of the whole text, N at least 2.
        seq_len: T.
        begin, end: the part whose characters are targets. The first character of a text never is,
            since it has no context.
        rows: R; None takes as many as leave each 16 windows and four times the burn-in, 64 at the
            most, whatever the batch size in training.
        burn_in: characters that are read before each row, or as many of them as there are.
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
        self.tokens, self.seq_len, self.burn_in = tokens, seq_len, burn_in
        self.begin, self.end = max(1, begin), len(tokens) if end is None else end
        count = self.end - self.begin
        self.rows = rows or max(1, min(64, count // max(16 * seq_len, 4 * burn_in)))
        self.length = -(-count // (self.rows * seq_len))
        self.starts = self.begin - 1 + torch.arange(self.rows) * (self.length * seq_len)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Window]:
        for index in range(self.length):
            places = self.starts + index * self.seq_len + torch.arange(self.seq_len + 1)[:, None]
            characters = self._read(places)
            targets = characters[1:].masked_fill(places[1:] >= self.end, PADDING)
            yield Window(characters[:-1], targets, index)

    @torch.no_grad()
    def initial_state(self, model: nn.Module) -> Tensor:
        """The state (L, R, H) in which the rows begin."""
        state = model.initial_state(self.rows)
        # A row near the beginning of the text has less before it, and joins the others later.
        joins = (self.burn_in - self.starts).clamp(min=0)
        cuts = {*joins.tolist(), *range(0, self.burn_in, self.seq_len), self.burn_in}
        for cut, following in itertools.pairwise([*sorted(cuts), None]):
            state = state.masked_fill((joins >= cut).to(state.device)[:, None], 0)
            if following is not None:
                places = self.starts - self.burn_in + torch.arange(cut, following)[:, None]
                _, state = model.outputs(self._read(places).to(state.device), state)
        return state

    def _read(self, places: Tensor) -> Tensor:
        """The characters at places; those that are none of the text's are of no matter."""
        return self.tokens[places.clamp(0, len(self.tokens) - 1)].long()
