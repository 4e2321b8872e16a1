"""Compressors in general use, to compare with: gzip, xz, Zstandard."""

import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO

from charrnn.data.files import BLOCK, import_zstd
from charrnn.data.waiting import progress_lines


def compressed_sizes(file: BinaryIO) -> dict[str, int | None]:
    """Return the bytes to which others compress a file; None where one is not installed."""
    compressors = {
        "xz -9": lzma.LZMACompressor(preset=9),
        "zstd -19": zstd_compressor(),
        "gzip -9": zlib.compressobj(9, wbits=31),
    }
    total = file.seek(0, 2) * sum(c is not None for c in compressors.values())
    update = progress_lines(total, f"comparing with {', '.join(compressors)}", "bytes")
    return {name: compressed_size(file, c, update) for name, c in compressors.items()}


def compressed_size(file: BinaryIO, compressor, update: Callable[[int], None]) -> int | None:
    """Return the bytes to which a compressor brings a file, which is not kept in memory."""
    if compressor is None:
        return None
    file.seek(0)
    size = 0
    while block := file.read(BLOCK):
        size += len(compressor.compress(block))
        update(len(block))
    return size + len(compressor.flush())


def zstd_compressor():
    """Return a compressor of Zstandard at level 19, or None where it is not installed."""
    try:
        return import_zstd().ZstdCompressor(level=19)
    except ImportError:
        return None
