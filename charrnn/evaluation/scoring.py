"""The tables of sample.py's score=FILE: what each character, or each line, of a text costs."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from charrnn.data.charset import BOUNDARY, Charset
from charrnn.data.files import find_files
from charrnn.data.text import read_text
from charrnn.errors import check, escape_control
from charrnn.evaluation import static as evaluation


def table(
    model: nn.Module, charset: Charset, score: str | list[str], by: str = "character"
) -> Iterator[str]:
    """The lines of a table with tabs between its columns, a head first.

    Args:
        score: a file (see :func:`charrnn.data.files.find_files`), read as the model's charset reads.
        by: "character": each character and its surprisal in bits, the file being one text from a
            zero state, so that the first character, which has no context, has none; "line": bits,
            bits per character, length and text of each line, read by itself after a line break.
            Where the model knows documents, a text begins as one of them does.

    Raises InputError for a file that cannot be read.
    """
    check("by", by, by in ("character", "line"), "character or line")
    text = "".join(read_text(find_files(score, "score"), None, charset, description="reading"))
    if by == "character":
        (bits,) = surprisal(model, charset, [text])
        yield "character\tbits"
        for character, value in zip(text, bits):
            yield f"{cell(character, charset.unit)}\t{'' if math.isnan(value) else f'{value:.4f}'}"
        return
    lines = text.removesuffix("\n").split("\n") if text else []
    before = "" if charset.documents or "\n" not in charset.alphabet else "\n"
    yield "bits\tbpc\tlength\tline"
    for line, bits in zip(lines, surprisal(model, charset, [before + line for line in lines])):
        total, count = np.nansum(bits[len(before) :]), len(line)
        mean = f"{total / count:.4f}" if count else ""
        yield f"{total:.4f}\t{mean}\t{count}\t{cell(line, charset.unit)}"


def surprisal(model: nn.Module, charset: Charset, texts: list[str]) -> list[np.ndarray]:
    """Bits of every character of texts that the charset has read, (N,) float64 each; NaN where a
    character has no context."""
    before = BOUNDARY if charset.documents else ""
    indices = [torch.from_numpy(charset.lookup(before + text).astype(np.int64)) for text in texts]
    bits = [nats / math.log(2) for nats in evaluation.score_many(model, indices)]
    return bits if before else [np.append(np.nan, b) if t else b for b, t in zip(bits, texts)]


def cell(text: str, unit: str) -> str:
    r"""A text without what would end its cell; of bytes, those beyond ASCII as \xe9 and so on."""
    text = escape_control(text).replace("\t", "\\t").replace("\n", "\\n")
    if unit == "byte":
        text = "".join(c if c.isascii() else f"\\x{ord(c):02x}" for c in text)
    return text
