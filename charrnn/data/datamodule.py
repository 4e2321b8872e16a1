"""CharDataModule: from texts to the windows of training, validation and test."""

import math
from collections.abc import Iterator

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from charrnn.data.charset import Charset
from charrnn.data.corpus import Corpus, find_alphabet, open_corpus, read_text
from charrnn.data.files import fetch, find_files, stdlib_files
from charrnn.data.stream import RowStream, Window
from charrnn.data.windows import EvaluationWindows
from charrnn.errors import check

VALIDATED = 5_000_000
"""Characters that validate at the most where nobody says how many: every round reads them all."""


class CharDataModule(LightningDataModule):
    """A text that trains, one that validates and one that tests: parts of one text, or several.

    The text is ``path`` where that is given, else what lies at ``url``, else the source of the
    interpreter's own library. Of one text the first part trains, the next validates, the last
    tests. The alphabet is that of this text, all of it, or a given one; in the texts of
    ``valid_path`` and ``test_path`` all other characters are unknown.

    Args:
        path: a file, a glob, a folder, or a list of them (see :func:`charrnn.data.files.find_files`);
            UTF-8 with unit="char".
        url: an https address, fetched once and kept, with the ``sha256`` of what lies there.
        max_bytes: of the interpreter's library, how much is read.
        unit, normalize, lowercase: as in :class:`charrnn.Charset`.
        document: "file" makes each file a document, another string is what separates documents,
            in which a newline may be written \\n; the state of a row is zero where one begins.
        min_count: characters that occur less often are unknown.
        charset: a text file, whose alphabet is taken, or a charset (see also
            :func:`charrnn.checkpoint.read_charset`).
        train_fraction: the share of the characters that train; what then is left validates. None
            is 0.9, or more where more than ``VALIDATED`` characters would validate.
        valid_size: how many characters validate, in place of train_fraction: a whole number of
            them, or a share of all below 1.
        test_size: how many test, as valid_size.
        valid_path, test_path: other texts, in place of parts of this one.
        batch_size: B, rows read at once by each process.
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
        normalize: str | None = None,
        lowercase: bool = False,
        document: str | None = None,
        min_count: int = 1,
        charset: str | Charset | None = None,
        train_fraction: float | None = None,
        valid_size: int | float | None = None,
        test_size: int | float = 0,
        valid_path: str | list[str] | None = None,
        test_path: str | list[str] | None = None,
        batch_size: int = 16,
        seq_len: int = 100,
        cache_dir: str | None = None,
    ):
        super().__init__()
        in_range = train_fraction is None or 0 < train_fraction <= 1
        check("train_fraction", train_fraction, in_range, "above 0, at most 1, or null")
        self.path, self.url, self.sha256, self.max_bytes = path, url, sha256, max_bytes
        self.min_count, self.cache_dir = min_count, cache_dir
        self.reading = {"unit": unit, "normalize": normalize, "lowercase": lowercase}
        self.document = document and document.replace("\\n", "\n").replace("\\t", "\t")
        self.corpus = corpus = self.open(charset and self.take_charset(charset))
        self.corpora = {"data.path": corpus}
        """By the key that names it, every text that was opened."""
        train, valid, test = split(
            len(corpus.tokens), train_fraction, 0 if valid_path else valid_size,
            0 if test_path else test_size,
        )  # fmt: skip
        self.stream = RowStream(corpus.tokens[:train], batch_size, seq_len)
        end = train + valid
        self.parts = {
            "train": (corpus.tokens, 0, train),
            "valid": self.part("data.valid_path", valid_path, train, end),
            "test": self.part("data.test_path", test_path, end, end + test),
            "all": (corpus.tokens, 0, len(corpus.tokens)),
        }
        """Indices of a text, and where in it the part begins and ends."""
        self.validation = windows(*self.parts["valid"], seq_len)
        self.test = windows(*self.parts["test"], seq_len)

    def share(self, rank: int, world_size: int) -> None:
        """Read the rows of one process among several, from the beginning."""
        stream = self.stream
        self.stream = RowStream(stream.tokens, stream.batch_size, stream.seq_len, rank, world_size)

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            self.share(self.trainer.global_rank, self.trainer.world_size)

    def part(
        self, key: str, path: str | list[str] | None, begin: int, end: int
    ) -> tuple[Tensor, int, int]:
        """A part of this text, or all of another one."""
        if not path:
            return self.corpus.tokens, begin, end
        files, charset = find_files(path, key), self.corpus.charset
        self.corpora[key] = corpus = open_corpus(
            files, cache_dir=self.cache_dir, document=self.document, charset=charset
        )
        return corpus.tokens, 0, len(corpus.tokens)

    def open(self, charset: Charset | None) -> Corpus:
        """Find, fetch and encode the text. Raises InputError."""
        max_bytes = None
        if self.path is not None:
            files = find_files(self.path)
        elif self.url is not None:
            files = [fetch(self.url, self.sha256, self.cache_dir)]
        else:
            files, max_bytes = stdlib_files(), self.max_bytes
        return open_corpus(
            files, max_bytes=max_bytes, cache_dir=self.cache_dir, min_count=self.min_count,
            charset=charset, document=self.document, **self.reading,
        )  # fmt: skip

    def take_charset(self, path: str | Charset) -> Charset:
        """A given alphabet, or that of a text file. Raises InputError."""
        check("min_count", self.min_count, self.min_count == 1, "1 with data.charset")
        if isinstance(path, Charset):
            return path
        files = find_files(path, "data.charset")
        charset = Charset("", **self.reading, documents=bool(self.document))
        return find_alphabet(read_text(files, None, charset), charset)

    def round_length(self, limit: int | float) -> int:
        """The windows of a round: ``limit_train_batches`` itself, or that share of a pass."""
        return limit if isinstance(limit, int) else max(1, int(len(self.stream) * limit))

    def train_dataloader(self) -> "Rounds":
        device = self.trainer.strategy.root_device
        if device.type == "cuda" and fits(self.stream.tokens, device):
            self.stream.to(device)
        limit = self.trainer.limit_train_batches
        if isinstance(limit, int):
            return Rounds(self.stream, limit)
        # Lightning takes its share itself, and refuses one of less than a window.
        return Rounds(self.stream, max(len(self.stream), math.ceil(1 / limit) if limit else 0))

    def transfer_batch_to_device(self, window: Window, device, dataloader_idx: int) -> Window:
        # Lightning's way through the parts of a window costs a CPU more than it is worth.
        if window.inputs.device == device:
            return window
        if device.type != "cuda":
            return super().transfer_batch_to_device(window, device, dataloader_idx)
        # From pinned memory, so that nobody waits for what the GPU has yet to do.
        parts = (part.pin_memory().to(device, non_blocking=True) for part in window[:2])
        return Window(*parts, window.index)

    def val_dataloader(self) -> "EvaluationWindows | list":
        return self.validation

    def test_dataloader(self) -> "EvaluationWindows | list":
        return self.test


def windows(tokens: Tensor, begin: int, end: int, seq_len: int) -> "EvaluationWindows | list":
    """The windows of a part of a text; none where that is empty."""
    return EvaluationWindows(tokens, seq_len, begin, end) if end > max(1, begin) else []


def fits(tokens: Tensor, device: torch.device) -> bool:
    """Whether a text, in its own small integers, takes no more than half of a GPU's free memory."""
    free, _ = torch.cuda.mem_get_info(device)
    return tokens.nbytes <= free // 2


def split(
    characters: int,
    train_fraction: float | None,
    valid_size: int | float | None,
    test_size: int | float,
) -> tuple[int, int, int]:
    """How many characters train, validate and test; settings as of :class:`CharDataModule`."""

    def number(name: str, size: int | float) -> int:
        whole = isinstance(size, int)
        ok = size >= 0 if whole else 0 <= size < 1
        check(name, size, ok, "a number of characters, or a share of all below 1")
        return size if whole else int(characters * size)

    test = number("test_size", test_size)
    left = characters - test
    if valid_size is not None:
        train = left - number("valid_size", valid_size)
    elif train_fraction == 1:
        train = left
    else:  # of two characters, one at least validates
        part = int(characters * (0.9 if train_fraction is None else train_fraction))
        train = min(max(1, part), left - 1)
        if train_fraction is None:
            train = max(train, left - VALIDATED)
    named = ("test_size", test_size) if valid_size in (None, 0) else ("valid_size", valid_size)
    check(*named, train > 0, f"less, so that some of the {characters:,} characters train")
    return train, left - train, test


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
