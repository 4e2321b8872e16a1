"""Rounds: a RowStream with a length, as Lightning requires of a dataloader."""

from collections.abc import Iterator

from charrnn.data.stream import RowStream, Window


class Rounds:
    """A stream and the number of windows in a round, which may exceed a pass.

    The iterator is endless and reads the position of the stream at every step, so that a position
    that is loaded after Lightning made the iterator takes effect.
    """

    def __init__(self, stream: RowStream, length: int):
        self.stream, self.length = stream, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Window]:
        return iter(self.stream)
