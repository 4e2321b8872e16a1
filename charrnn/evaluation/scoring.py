"""Tables of surprisal, for ``sample.py score=FILE``: bits of each character or each line of a text.

N characters.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from charrnn.data.charset import BOUNDARY, Charset
from charrnn.data.decode import AUTO, is_encoding
from charrnn.data.files import find_files
from charrnn.data.text import read_text
from charrnn.errors import check, escape_control
from charrnn.evaluation.static import score_many


def score_table(
    model: nn.Module,
    charset: Charset,
    score: str | list[str],
    by: str = "character",
    encoding: str = AUTO,
) -> Iterator[str]:
    """Generate the lines of a tab-separated table, header first.

    Where the model knows documents, every text is read as a document from its beginning.

    Args:
        score: files, as for :func:`charrnn.data.files.find_files`, read as the model's charset
            requires.
        by: "character": each character with its surprisal in bits, for the whole file from a zero
            state; the first one, without context, has none. "line": bits, bits per character,
            length and text of each line, read after a line break from a zero state.
        encoding: as in :func:`charrnn.data.decode.decode`.

    Raises:
        InputError: a file cannot be read.
    """
    check("by", by, by in ("character", "line"), "character or line")
    check("encoding", encoding, is_encoding(encoding), "auto, or a codec of Python, as in latin-1")
    files = find_files(score, "score")
    text = "".join(read_text(files, None, charset, description="reading", encoding=encoding))
    if by == "character":
        (bits,) = surprisals(model, charset, [text])
        yield "character\tbits"
        for character, value in zip(text, bits):
            bits_cell = "" if math.isnan(value) else f"{value:.4f}"
            yield f"{format_cell(character, charset.unit)}\t{bits_cell}"
        return
    lines = text.removesuffix("\n").split("\n") if text else []
    before = "" if charset.documents or "\n" not in charset.alphabet else "\n"
    yield "bits\tbpc\tlength\tline"
    for line, bits in zip(lines, surprisals(model, charset, [before + line for line in lines])):
        total, count = np.nansum(bits[len(before) :]), len(line)
        mean = f"{total / count:.4f}" if count else ""
        yield f"{total:.4f}\t{mean}\t{count}\t{format_cell(line, charset.unit)}"


def surprisals(model: nn.Module, charset: Charset, texts: list[str]) -> list[np.ndarray]:
    """Compute the bits of every character of preprocessed texts, (N,) float64 for each text.

    A character without context gets NaN.
    """
    before = BOUNDARY if charset.documents else ""
    indices = [torch.from_numpy(charset.lookup(before + text).astype(np.int64)) for text in texts]
    bits = [nats / math.log(2) for nats in score_many(model, indices)]
    return bits if before else [np.append(np.nan, b) if t else b for b, t in zip(bits, texts)]


def format_cell(text: str, unit: str) -> str:
    r"""Escape what would end a cell; of bytes, also those beyond ASCII, as \xe9."""
    text = escape_control(text).replace("\t", "\\t").replace("\n", "\\n")
    if unit == "byte":
        text = "".join(c if c.isascii() else f"\\x{ord(c):02x}" for c in text)
    return text
