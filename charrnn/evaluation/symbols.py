"""Characters as intervals of a range coder: the frequencies of a model, and unknown characters.

B streams, N characters, V vocabulary size.

``charrnn/gru/csrc/coder.cpp`` is the same for the native kernels. Both compute frequencies as whole
numbers, so that an encoder and a decoder on the same machine divide the range equally. The two
round e^x differently: an archive is read by the one that wrote it.
"""

import numpy as np
import torch
from torch import nn

from charrnn.evaluation.range_coder import Decoder, Encoder
from charrnn.models import contract
from charrnn.models.state import State

TOTAL_BITS = 40
"""The frequencies of V equally likely characters add up to 2^40."""
STEP, LIMIT = 32, 1 << 16
"""What a byte of an unknown character adds to its count, and the sum at which all are halved."""


def frequencies(logits: np.ndarray) -> np.ndarray:
    """Return frequencies (B, V) int64 in proportion to e^logit, each at least 1.

    Raises:
        FloatingPointError: logits are not finite.
    """
    scale = 2.0 ** (TOTAL_BITS - (logits.shape[1] - 1).bit_length())
    with np.errstate(invalid="ignore"):
        x = logits - logits.max(1, keepdims=True)
        chances = np.exp(np.maximum(x, -708)) * scale
    if not np.isfinite(chances).all():
        raise FloatingPointError("logits are not finite")
    return chances.astype(np.int64) + 1


class Stream:
    """One of the texts that are coded at once.

    Attributes:
        characters, unknown: how many were coded, and how many of them are outside the alphabet.
    """

    def __init__(self, in_bytes: bool):
        self.in_bytes, self.encoder, self.decoder = in_bytes, Encoder(), Decoder(b"")
        self.characters = self.unknown = 0
        self.counts: dict[int, list[int]] = {}

    def code(self, sizes: np.ndarray, index: int, point: int, decode: bool) -> tuple[int, int]:
        """Code a character; return its index and, where that is 0, its code point.

        The frequency of index 0 becomes at least the share of unknown characters so far, so that a
        text of many of them costs little.

        Args:
            sizes: the frequencies (V,), which are changed.
        """
        total = int(sizes.sum())
        share = (64 * self.unknown + 1 << 20) // (64 * (self.characters + 1))
        least = (total >> 20) * share
        if least > sizes[0]:
            total += least - int(sizes[0])
            sizes[0] = least
        ends = sizes.cumsum()
        if decode:
            index = int(np.searchsorted(ends, self.decoder.value(total), side="right"))
            self.decoder.remove(int(ends[index] - sizes[index]), int(sizes[index]))
        else:
            self.encoder.encode(int(ends[index] - sizes[index]), int(sizes[index]), total)
        self.characters += 1
        if index == 0:
            self.unknown += 1
            point = self._code_unknown(point, decode)
        return index, point

    def _code_unknown(self, point: int, decode: bool) -> int:
        """Code a byte itself, or a code point as UTF-8 (of lone surrogates too)."""
        if self.in_bytes:
            return self._code_byte(0, point, decode)
        data = b"" if decode else chr(point).encode("utf-8", "surrogatepass")
        first = self._code_byte(0, data[0] if data else 0, decode)
        length = 1 + (first >= 0x80) + (first >= 0xE0) + (first >= 0xF0)
        coded = [first]
        for i in range(1, length):
            coded.append(self._code_byte(coded[-1], data[i] if data else 0, decode))
        return ord(bytes(coded).decode("utf-8", "surrogatepass")) if decode else point

    def _code_byte(self, before: int, byte: int, decode: bool) -> int:
        """Code a byte by the counts of those that came after the byte before it."""
        counts = self.counts.setdefault(before, [1] * 256)
        total = sum(counts)
        if decode:
            value, start, byte = self.decoder.value(total), 0, 0
            while start + counts[byte] <= value:
                start += counts[byte]
                byte += 1
            self.decoder.remove(start, counts[byte])
        else:
            self.encoder.encode(sum(counts[:byte]), counts[byte], total)
        counts[byte] += STEP
        if total + STEP >= LIMIT:
            counts[:] = [(count + 1) // 2 for count in counts]
        return byte


class Streams:
    """The coders of B streams; :class:`charrnn.gru.coder.Streams` is the same in C++."""

    def __init__(self, rows: int, in_bytes: bool):
        self.each = [Stream(in_bytes) for _ in range(rows)]

    def read(self, codes: list[bytes]) -> None:
        """Begin a block that is decoded from the code of each stream."""
        for stream, code in zip(self.each, codes):
            stream.decoder = Decoder(code)

    def finish(self) -> list[bytes]:
        """End a block that was encoded, and return the code of each stream."""
        return [stream.encoder.finish() for stream in self.each]


class Stepper:
    """A model between two characters, for :func:`run`: logits (B, V) of the next, and the state."""

    def __init__(self, model: nn.Module, logits: torch.Tensor, state: State):
        self.model, self.logits, self.state = model, logits, state


def run(
    stepper: Stepper,
    streams: Streams,
    indices: np.ndarray,
    points: np.ndarray,
    counts: np.ndarray,
    decode: bool,
) -> None:
    """Code the next characters of each stream; arguments as in :func:`charrnn.gru.coder.run`."""
    for t in range(len(indices)):
        sizes = frequencies(stepper.logits.double().numpy())
        indices[t, t >= counts] = 0
        for row in np.flatnonzero(t < counts):
            indices[t, row], points[t, row] = streams.each[row].code(
                sizes[row], int(indices[t, row]), int(points[t, row]), decode
            )
        inputs = torch.from_numpy(indices[t : t + 1])
        logits, stepper.state = contract.run(stepper.model, inputs, stepper.state)
        stepper.logits = logits[0]
