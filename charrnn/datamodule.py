"""CharDataModule: from a text to the windows of training and validation."""

import math
from collections.abc import Iterator

from pytorch_lightning import LightningDataModule

from charrnn.corpus import Corpus, open_corpus
from charrnn.errors import check
from charrnn.evaluation import EvaluationWindows
from charrnn.files import fetch, find_files, stdlib_files
from charrnn.stream import RowStream, Window


class CharDataModule(LightningDataModule):
    """One text, the first part of it for training, the rest for validation.

    The text is ``path`` where that is given, else what lies at ``url``, else the source of the
    interpreter's own library.

    Args:
        path: a file, a glob, or a list of them; UTF-8 with unit="char".
        url: an https address, fetched once and kept, with the ``sha256`` of what lies there.
        max_bytes: of the interpreter's library, how much is read.
        unit: "char" or "byte".
        train_fraction: the share of the characters that train; at 1 nothing validates.
        batch_size: B, rows read at once.
        seq_len: T, steps in a window.
        cache_dir: where encoded texts and downloads are kept; None is the user's cache folder.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        url: str | None = None,
        sha256: str | None = None,
        max_bytes: int | None = None,
        unit: str = "char",
        train_fraction: float = 0.9,
        batch_size: int = 16,
        seq_len: int = 100,
        cache_dir: str | None = None,
    ):
        super().__init__()
        in_range = 0 < train_fraction <= 1
        check("train_fraction", train_fraction, in_range, "above 0, at most 1")
        self.path, self.url, self.sha256, self.max_bytes = path, url, sha256, max_bytes
        self.unit, self.train_fraction, self.cache_dir = unit, train_fraction, cache_dir
        corpus = self.open()
        self.corpus = corpus
        size = len(corpus.tokens)
        split = size if train_fraction == 1 else min(max(1, int(size * train_fraction)), size - 1)
        self.stream = RowStream(corpus.tokens[:split], batch_size, seq_len)
        # The last character of training is the context of the first one that validates.
        tokens = corpus.tokens[split - 1 :]
        self.validation = EvaluationWindows(tokens, seq_len) if split < size else []

    def open(self) -> Corpus:
        """Find, fetch and encode the text. Raises InputError."""
        max_bytes = None
        if self.path is not None:
            files = find_files(self.path)
        elif self.url is not None:
            files = [fetch(self.url, self.sha256, self.cache_dir)]
        else:
            files, max_bytes = stdlib_files(), self.max_bytes
        return open_corpus(files, self.unit, max_bytes, self.cache_dir)

    def round_length(self, limit: int | float) -> int:
        """The windows of a round: ``limit_train_batches`` itself, or that share of a pass."""
        return limit if isinstance(limit, int) else max(1, int(len(self.stream) * limit))

    def train_dataloader(self) -> "Rounds":
        limit = self.trainer.limit_train_batches
        if isinstance(limit, int):
            return Rounds(self.stream, limit)
        # Lightning takes its share itself, and refuses one of less than a window.
        return Rounds(self.stream, max(len(self.stream), math.ceil(1 / limit) if limit else 0))

    def transfer_batch_to_device(self, window: Window, device, dataloader_idx: int) -> Window:
        # Lightning's way through the parts of a window costs a CPU more than it is worth.
        if device.type == "cpu":
            return window
        return super().transfer_batch_to_device(window, device, dataloader_idx)

    def val_dataloader(self) -> "EvaluationWindows | list":
        return self.validation


class Rounds:
    """The stream as Lightning wants it: with a length, which may exceed a pass.

    Its iterator has no end and reads the stream's position when it is asked, so that a position
    loaded after Lightning made the iterator counts.
    """

    def __init__(self, stream: RowStream, length: int):
        self.stream, self.length = stream, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Window]:
        return iter(self.stream)
