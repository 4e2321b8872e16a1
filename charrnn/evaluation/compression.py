"""Lossless compression: a file becomes an archive, and an archive the same file again.

B streams, N characters.

The characters of B slices are coded with the model's probabilities at once, block by block, so that
memory does not grow with the file. Encoder and decoder must compute the same numbers to the last
bit, which another processor, library or number of threads may not: an archive has a test of that,
and the checksum of the file.
"""

import contextlib
import hashlib
import itertools
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from charrnn import __version__, checkpoint
from charrnn.data.charset import BOUNDARY
from charrnn.data.waiting import progress_lines
from charrnn.errors import InputError, check
from charrnn.evaluation.archive import MAX_STREAMS, SEQ_LEN, Reader, Writer, block_size
from charrnn.evaluation.coding import DynamicCoding, Judge, StaticCoding
from charrnn.evaluation.slices import SliceReader, SliceWriter, cut, survey
from charrnn.gru.generate import supports_model

STREAMS = 64
PER_STREAM = 1 << 14
"""Bytes of a file for which it has one more stream, at most ``STREAMS``; 8 in dynamic mode, where
an update sees a segment of every stream: fewer streams follow the text more closely."""
LR = 1e-2


@dataclass(frozen=True)
class Result:
    """What a compression came to.

    Attributes:
        size, characters, unknown: of the file: bytes, characters, and those outside the alphabet.
        archive: bytes of the archive.
        code: bytes of the codes in it.
        nats: of all characters, as evaluation computes them.
        streams: how many there are.
        seconds: of the coding, without its verification and the evaluation.
        sha256: of the file, and of what the archive was decompressed to.
    """

    size: int
    characters: int
    unknown: int
    archive: int
    code: int
    nats: float
    streams: int
    seconds: float
    sha256: str


class Compressor:
    """A checkpoint's model, which compresses and decompresses on the CPU.

    Args:
        path: a checkpoint, or a run's folder.
        allow_targets: as in :func:`charrnn.load`.

    Attributes:
        description: the model in a few words.

    Raises:
        InputError: there is no checkpoint.
    """

    def __init__(self, path: str | Path, allow_targets: Sequence[str] = ()):
        saved = checkpoint.read(checkpoint.find_checkpoint(path))
        self.model, self.charset = checkpoint.build_model(saved, allow_targets)
        self.checksum = checkpoint.checksum(self.charset.state_dict(), self.model.state_dict())
        parameters = sum(p.numel() for p in self.model.parameters())
        name = type(self.model).__name__
        self.description = f"{name}, {parameters:,} parameters, {len(self.charset)} characters"
        self.in_bytes = self.charset.unit == "byte"
        start = BOUNDARY if self.charset.documents else "\n"
        self.first = int(self.charset.encode(start)[0])

    def compress(
        self,
        file: BinaryIO,
        archive: BinaryIO,
        scratch: BinaryIO,
        dynamic: bool = False,
        streams: int | None = None,
        lr: float = LR,
        decay: float = 0.0,
    ) -> Result:
        """Write the archive of a file, and verify that it decompresses to the same bytes.

        Args:
            file, archive, scratch: open for reading; the others for writing too.
            dynamic: update the parameters along the text, by gradient descent with ``lr`` and
                ``decay`` as in dynamic evaluation.
            streams: B; None takes one for every ``PER_STREAM`` bytes, within bounds.

        Raises:
            InputError: a setting is out of range, or the file changed meanwhile.
        """
        ok = streams is None or 1 <= streams <= MAX_STREAMS
        check("streams", streams, ok, f"from 1 to {MAX_STREAMS:,}")
        check("lr", lr, 0 <= lr < 1e38, "at least 0")
        check("decay", decay, 0 <= decay <= 1, "from 0 to 1")
        source = survey(file)
        most = streams or min(8 if dynamic else STREAMS, source.size // PER_STREAM)
        positions = cut(file, source, max(1, min(most, source.size)), self.in_bytes)
        crlf = source.crlf and not self.in_bytes and "\r" not in self.charset.alphabet
        readers = [
            SliceReader(file, begin, end, self.in_bytes, crlf)
            for begin, end in itertools.pairwise(positions)
        ]
        settings = {"lr": lr, "decay": decay} if dynamic else None
        sizes = np.diff(positions).tolist()
        slices = [[size, reader.count()] for size, reader in zip(sizes, readers)]
        # Segments are too little work for two threads, which would wait for each other.
        with threads(1 if dynamic else torch.get_num_threads()):
            header = {
                "description": self.description, "model": self.checksum, "dynamic": settings,
                "backend": self.backend(), "threads": torch.get_num_threads(),
                "self_test": self.self_test(settings, len(slices)), "size": source.size,
                "sha256": source.sha256, "crlf": crlf, "slices": slices,
            }  # fmt: skip
            writer = Writer(archive, header)
            code, unknown, nats, seconds = self._encode(writer, readers, slices, settings)
        writer.close()
        self.decompress(archive, scratch)
        return Result(
            source.size, sum(n for _, n in slices), unknown, writer.size, code, nats, len(slices),
            seconds, source.sha256,
        )  # fmt: skip

    def _encode(
        self, writer: Writer, readers: list[SliceReader], slices: list, settings: dict | None
    ) -> tuple[int, int, float, float]:
        """Write all blocks; return bytes of codes, unknown characters, nats, seconds of coding."""
        coding = self.coding(settings, len(slices))
        judge, code, unknown = Judge(self.model, self.first, len(slices)), 0, 0
        seconds, total = 0.0, sum(characters for _, characters in slices)
        update = progress_lines(total, "compressing", "characters")
        judged = progress_lines(total, "evaluating", "characters")
        for counts in block_counts([characters for _, characters in slices]):
            points = stack([reader.read(n) for reader, n in zip(readers, counts.tolist())])
            if len(points) < counts.max():
                raise InputError("the file changed while it was read; compress it again")
            indices = np.take(self.charset.index, points, mode="clip").astype(np.int64)
            start = time.perf_counter()
            with report_numbers():
                coding.code(indices, points, counts, decode=False, update=update)
            codes = coding.streams.finish()
            seconds += time.perf_counter() - start
            writer.block(codes)
            code += sum(map(len, codes))
            unknown += int(((indices == 0) & (np.arange(len(indices))[:, None] < counts)).sum())
            if settings is None:
                judge.add(indices, counts, judged)
        nats = judge.nats if settings is None else coding.totals.total
        return code, unknown, nats, seconds

    def decompress(self, archive: BinaryIO, file: BinaryIO, name: str = "the archive") -> dict:
        """Write what an archive holds to a file, and return the archive's header.

        Args:
            archive, file: open for reading; for writing and reading.
            name: of the archive, for errors.

        Raises:
            InputError: it is no archive, damaged, of another model, or of a machine that computes
                other numbers. What was written then is of no use.
        """
        archive.seek(0)
        reader = Reader(archive, name)
        header, rows = reader.header, reader.rows
        if header["model"] != self.checksum:
            raise InputError(
                f"{name}: compressed by another model ({header['description']}); give that one"
            )
        with threads(header["threads"]):
            if self.self_test(header["dynamic"], rows) != header["self_test"]:
                raise InputError(
                    f"{name}: compressed with {header['backend']}; here, with {self.backend()}, the"
                    " model computes other numbers: decompress it there"
                )
            coding, blocks = self.coding(header["dynamic"], rows), reader.blocks()
            sizes, characters = zip(*header["slices"])
            writer = SliceWriter(file, sizes, self.in_bytes, header["crlf"])
            update = progress_lines(sum(characters), "decompressing", "characters")
            for counts in block_counts(characters):
                coding.streams.read(next(blocks))
                indices = np.zeros((counts.max(), rows), np.int64)
                points = np.zeros(indices.shape, np.uint32)
                try:
                    coding.code(indices, points, counts, decode=True, update=update)
                    writer.write(np.where(indices, self.charset.points[indices], points), counts)
                except (FloatingPointError, UnicodeError) as error:
                    raise reader.damaged() from error
        file.seek(0)
        if survey(file).sha256 != header["sha256"]:
            raise reader.damaged()
        return header

    def coding(self, dynamic: dict | None, rows: int) -> StaticCoding:
        """Return the coding of B = ``rows`` streams at their start."""
        arguments = self.model, self.first, rows, self.in_bytes
        if dynamic is None:
            return StaticCoding(*arguments)
        return DynamicCoding(*arguments, dynamic["lr"], dynamic["decay"])

    def self_test(self, dynamic: dict | None, rows: int) -> str:
        """Return the SHA-256 of the codes of some random characters."""
        coding = self.coding(dynamic, rows)
        size = (2 * SEQ_LEN, rows)
        indices = np.random.default_rng(0).integers(0, len(self.charset), size)
        with report_numbers():
            coding.code(indices, np.zeros(size, np.uint32), np.full(rows, size[0]), False)
        return hashlib.sha256(b"".join(coding.streams.finish())).hexdigest()

    def backend(self) -> str:
        """Name what the numbers depend on, as far as that has a name."""
        kernels = "native" if supports_model(self.model) else "torch"
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return (
            f"{kernels} {dtype}, charrnn {__version__}, torch {torch.__version__},"
            f" {torch.get_num_threads()} threads, {platform.machine()}"
        )


def block_counts(characters: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the characters of each block, (B,), for streams of so many characters."""
    size = block_size(len(characters))
    for begin in range(0, max(characters), size):
        yield (np.array(characters) - begin).clip(0, size)


def stack(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of points, (N,) each, as columns (N, B), the shorter ones padded with zeros."""
    points = np.zeros((max(map(len, rows)), len(rows)), np.uint32)
    for i, row in enumerate(rows):
        points[: len(row), i] = row
    return points


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with that many threads, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def report_numbers() -> Iterator[None]:
    """Raise InputError where the model's numbers are not finite."""
    try:
        yield
    except FloatingPointError as error:
        raise InputError(f"{error}; a dynamic compression needs a lower --lr") from error
