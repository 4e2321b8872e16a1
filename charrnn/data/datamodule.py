"""CharDataModule: from text files to the windows of training, validation and test."""

import math
import zipfile
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from charrnn.data.charset import NEWLINES, Charset
from charrnn.data.corpus import Corpus, find_alphabet, open_corpus
from charrnn.data.files import fetch, find_files, user_path
from charrnn.data.rounds import Rounds
from charrnn.data.split import split_sizes
from charrnn.data.stdlib import LIBRARIES, stdlib_files
from charrnn.data.stream import RowStream, Window
from charrnn.data.text import read_text, unescape
from charrnn.data.windows import EvaluationWindows
from charrnn.errors import InputError, check


class CharDataModule(LightningDataModule):
    """Training, validation and test text: parts of one corpus, or corpora of their own.

    The text is ``path`` if given, else the file at ``url``, else the source of Python's standard
    library. Its first part is for training, the next for validation, the last for test. The
    alphabet is that of the whole text, or ``charset``; other characters of ``valid_path`` and
    ``test_path`` are unknown.

    Args:
        path: a file, a glob, a folder, or a list of them (see :func:`charrnn.data.find_files`);
            text with unit="char".
        url: an https address, downloaded once; requires ``sha256``, the hash of the file.
        max_bytes: how much of the standard library is read.
        library: which files of it, as in :func:`charrnn.data.stdlib.stdlib_files`.
        unit, normalize, lowercase: as in :class:`charrnn.Charset`.
        document: "file" makes each file a document; any other string separates documents, with
            \\n for a newline. The state of a row is reset to zero where a document starts.
        newlines: "universal" reads CRLF and CR as LF; "keep" leaves them. Bytes stay as they are.
        encoding: "auto" is that of each file's byte order mark, else UTF-8; or a codec of Python.
        min_count: characters that occur less often are unknown.
        charset: an alphabet, or a text file that contains its characters. For the alphabet of a
            checkpoint pass the result of :func:`charrnn.checkpoint.read_charset`.
        train_fraction: fraction of the characters for training; the rest is for validation. None
            is 0.9, or more if more than ``split.MAX_VALIDATION`` characters would be left.
        valid_size: number of characters for validation, instead of ``train_fraction``; below 1 a
            fraction of all.
        test_size: number of characters for test, as ``valid_size``.
        valid_path, test_path: other texts, instead of parts of this one.
        batch_size: B, rows that each process reads in parallel.
        seq_len: T, time steps in a window.
        cache_dir: folder of encoded texts and downloads; None selects the user's cache folder.

    Attributes:
        corpus: the text, a :class:`charrnn.data.Corpus`.
        corpora: every text that was opened, by the setting that names it.
        stream: training windows, a :class:`charrnn.RowStream`.
        validation, test: :class:`charrnn.data.EvaluationWindows`, or an empty list.
        parts: for "train", "valid", "test" and "all", the tokens of a text and where in it the
            part begins and ends.

    Raises:
        InputError: names the setting that is out of range, or the file that cannot be read.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        url: str | None = None,
        sha256: str | None = None,
        max_bytes: int | None = None,
        library: str = "programs",
        unit: str = "char",
        normalize: str | None = None,
        lowercase: bool = False,
        document: str | None = None,
        newlines: str = "universal",
        encoding: str = "auto",
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
        check("library", library, library in LIBRARIES, " or ".join(LIBRARIES))
        self.library = library
        self.path, self.url, self.sha256, self.max_bytes = path, url, sha256, max_bytes
        self.min_count, self.cache_dir = min_count, cache_dir
        check("newlines", newlines, newlines in NEWLINES, "universal or keep")
        self.options = {"unit": unit, "normalize": normalize, "lowercase": lowercase}
        self.options["newlines"] = "keep" if unit == "byte" else newlines
        self.encoding = encoding
        self.document = document and unescape(document)
        given = None if charset is None else self.resolve_charset(charset)
        self.corpus = corpus = self.open_text(given)
        self.corpora = {"data.path": corpus}
        train, valid, test = split_sizes(
            len(corpus.tokens), train_fraction, 0 if valid_path else valid_size,
            0 if test_path else test_size,
        )  # fmt: skip
        self.stream = RowStream(corpus.tokens[:train], batch_size, seq_len)
        end = train + valid
        self.parts = {
            "train": (corpus.tokens, 0, train),
            "valid": self.open_part("data.valid_path", valid_path, train, end),
            "test": self.open_part("data.test_path", test_path, end, end + test),
            "all": (corpus.tokens, 0, len(corpus.tokens)),
        }
        self.validation = evaluation_windows(*self.parts["valid"], seq_len)
        self.test = evaluation_windows(*self.parts["test"], seq_len)

    def open_text(self, charset: Charset | None) -> Corpus:
        """Find, download and encode the text."""
        max_bytes = None
        if self.path is not None:
            files = find_files(self.path)
        elif self.url is not None:
            files = [fetch(self.url, self.sha256, self.cache_dir)]
        else:
            files, max_bytes = stdlib_files(self.library), self.max_bytes
        return open_corpus(
            files, max_bytes=max_bytes, cache_dir=self.cache_dir, min_count=self.min_count,
            charset=charset, document=self.document, encoding=self.encoding, **self.options,
        )  # fmt: skip

    def open_part(
        self, key: str, path: str | list[str] | None, begin: int, end: int
    ) -> tuple[Tensor, int, int]:
        """Return a part of this text, or all of the text at ``path``."""
        if not path:
            return self.corpus.tokens, begin, end
        files, charset = find_files(path, key), self.corpus.charset
        self.corpora[key] = corpus = open_corpus(
            files, cache_dir=self.cache_dir, document=self.document, charset=charset,
            encoding=self.encoding,
        )  # fmt: skip
        return corpus.tokens, 0, len(corpus.tokens)

    def resolve_charset(self, charset: str | Charset) -> Charset:
        """Return an alphabet, or read it from a text file."""
        check("min_count", self.min_count, self.min_count == 1, "1 with data.charset")
        if isinstance(charset, Charset):
            return charset
        if may_be_checkpoint(user_path(charset)):
            raise InputError(
                f"data.charset={charset} is a checkpoint or a folder; give a text file, or pass"
                " the result of charrnn.checkpoint.read_charset"
            )
        files = find_files(charset, "data.charset")
        empty = Charset("", **self.options, documents=bool(self.document))
        return find_alphabet(read_text(files, None, empty, encoding=self.encoding), empty)

    def setup(self, stage: str) -> None:
        if self.trainer.overfit_batches:
            self.overfit(self.trainer.overfit_batches, self.trainer.world_size)
        if self.trainer.world_size > 1:
            self.shard(self.trainer.global_rank, self.trainer.world_size)

    def overfit(self, windows: int, world_size: int = 1) -> None:
        """Keep as much of the training text as so many windows read, for ``overfit_batches``.

        A pass is then these windows. They are read again and again, and the carry rolls as ever.
        """
        stream = self.stream
        size = windows * stream.batch_size * world_size * stream.seq_len
        self.stream = RowStream(stream.tokens[:size], stream.batch_size, stream.seq_len)

    def shard(self, rank: int, world_size: int) -> None:
        """Keep the training rows of one rank, from the start of the text."""
        stream = self.stream
        self.stream = RowStream(stream.tokens, stream.batch_size, stream.seq_len, rank, world_size)

    def round_length(self, limit: int | float) -> int:
        """Return the number of windows of a round, from ``trainer.limit_train_batches``."""
        return limit if isinstance(limit, int) else max(1, int(len(self.stream) * limit))

    def train_dataloader(self) -> Rounds:
        device = self.trainer.strategy.root_device
        if device.type == "cuda" and fits_in_memory(self.stream.tokens, device):
            self.stream.to(device)
        limit = self.trainer.limit_train_batches
        if isinstance(limit, int):
            return Rounds(self.stream, limit)
        # Lightning applies the fraction itself, and rejects one of less than a window.
        return Rounds(self.stream, max(len(self.stream), math.ceil(1 / limit) if limit else 0))

    def val_dataloader(self) -> EvaluationWindows | list:
        return self.validation

    def test_dataloader(self) -> EvaluationWindows | list:
        return self.test

    def transfer_batch_to_device(self, window: Window, device, dataloader_idx: int) -> Window:
        # Lightning's recursion through the fields of a window is slow on a CPU.
        if window.inputs.device == device:
            return window
        if device.type != "cuda":
            return super().transfer_batch_to_device(window, device, dataloader_idx)
        # From pinned memory, so that the copy does not wait for the GPU.
        parts = (part.pin_memory().to(device, non_blocking=True) for part in window[:2])
        return Window(*parts, window.index)


def evaluation_windows(
    tokens: Tensor, begin: int, end: int, seq_len: int
) -> EvaluationWindows | list:
    """Return the windows of a part of a text; an empty list if the part is empty."""
    return EvaluationWindows(tokens, seq_len, begin, end) if end > max(1, begin) else []


def may_be_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint or a folder, such as a run's, and not a text file."""
    if path.is_dir() or path.suffix in (".ckpt", ".safetensors"):
        return True
    return path.is_file() and path.suffix != ".zip" and zipfile.is_zipfile(path)


def fits_in_memory(tokens: Tensor, device: torch.device) -> bool:
    """Whether a text, in its integer type, takes at most half of the free memory of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    return tokens.nbytes <= free // 2
