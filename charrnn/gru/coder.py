"""Lossless compression by the kernels: characters of parallel streams coded as they are stepped.

B streams, N characters, V vocabulary size.
"""

import ctypes
import weakref

import numpy as np

from charrnn.gru import build, native
from charrnn.gru.generate import Generator


class Streams:
    """The coders of B streams; :class:`charrnn.evaluation.symbols.Streams` is the same in Python.

    Args:
        rows: B.
        in_bytes: whether a character outside the alphabet is a byte, as opposed to a code point.
    """

    def __init__(self, rows: int, in_bytes: bool):
        self.rows, self.pointer = rows, ctypes.c_void_p()
        self._library = build.library()
        if self._library.streams_open(
            ctypes.byref(self.pointer), ctypes.c_long(rows), ctypes.c_int(in_bytes)
        ):
            raise MemoryError("no memory for streams_open")
        weakref.finalize(self, self._library.streams_close, self.pointer)

    def read(self, codes: list[bytes]) -> None:
        """Begin a block that is decoded from the code of each stream."""
        self._codes = np.frombuffer(b"".join(codes), np.uint8)  # the decoders point to it
        sizes = np.array([len(code) for code in codes], np.int64)
        self._library.streams_read(self.pointer, pointer(self._codes), pointer(sizes))

    def finish(self) -> list[bytes]:
        """End a block that was encoded, and return the code of each stream."""
        sizes = np.empty(self.rows, np.int64)
        self._library.streams_finish(self.pointer, pointer(sizes))
        codes = np.empty(sizes.sum(), np.uint8)
        self._library.streams_take(self.pointer, pointer(codes))
        return [part.tobytes() for part in np.split(codes, sizes.cumsum()[:-1])]


def run(
    generator: Generator,
    streams: Streams,
    indices: np.ndarray,
    points: np.ndarray,
    counts: np.ndarray,
    decode: bool,
) -> None:
    """Code the next characters of each stream, and step the model along them.

    Args:
        generator: of B rows; its logits are those of the first character.
        indices: (N, B) int64, read by the encoder and set by the decoder.
        points: (N, B) uint32, the code points where the index is 0, likewise.
        counts: (B,) int64, how many of the N characters each stream has.

    Raises:
        FloatingPointError: logits are not finite.
    """
    native.call(
        "coder_run", generator.logits, generator.sampler.value, streams.pointer.value,
        indices.ctypes.data, points.ctypes.data, counts.ctypes.data, len(indices), decode,
    )  # fmt: skip


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Return a pointer to an array's data."""
    return ctypes.c_void_p(array.ctypes.data)
