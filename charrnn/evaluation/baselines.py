"""Compressors in general use, to compare with: gzip, xz, Zstandard."""

import lzma
import zlib
from typing import BinaryIO

from charrnn.data.files import BLOCK, import_zstd


def compressed_sizes(file: BinaryIO) -> dict[str, int | None]:
    """Return the bytes to which others compress a file; None where one is not installed."""
    return {
        "xz -9": compressed_size(file, lzma.LZMACompressor(preset=9)),
        "zstd -19": compressed_size(file, zstd_compressor()),
        "gzip -9": compressed_size(file, zlib.compressobj(9, wbits=31)),
    }


def compressed_size(file: BinaryIO, compressor) -> int | None:
    """Return the bytes to which a compressor brings a file, which is not kept in memory."""
    if compressor is None:
        return None
    file.seek(0)
    size = 0
    while block := file.read(BLOCK):
        size += len(compressor.compress(block))
    return size + len(compressor.flush())


def zstd_compressor():
    """Return a compressor of Zstandard at level 19, or None where it is not installed."""
    try:
        return import_zstd().ZstdCompressor(level=19)
    except ImportError:
        return None
