"""Beam search by the kernels; :mod:`charrnn.generation.beam` has its definition.

K width of the beam, V vocabulary size, N characters.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from charrnn.gru import native
from charrnn.gru.generate import Generator, Guard

STEPS = 64
"""Characters of one call, between which an interruption is noticed."""


def search(
    generator: Generator,
    length: int,
    length_penalty: float,
    ends: Sequence[Tensor],
    allowed: Tensor | None = None,
    guard: Guard | None = None,
) -> Tensor:
    """Return the best text (N,) that a beam of as many texts as the generator has rows finds.

    Args:
        generator: of K rows, all with the state and the logits after the prompt.
        length: N at most, at least 1.
        length_penalty: alpha of the score.
        ends: indices of the texts that end a text.
        allowed: (V) bool.
        guard: with ``recent`` of one row.

    Raises:
        FloatingPointError: logits are not finite.
    """
    rows, size = generator.logits.shape
    recent = guard and guard.recent.contiguous()
    seen, ngram, window = (recent.size(1), guard.n, guard.window) if guard else (0, 0, 0)
    beam, found = ctypes.c_void_p(), torch.full((1,), -1)
    sizes = torch.tensor([len(end) for end in ends], dtype=torch.int64)
    texts = torch.cat([*ends, sizes[:0]])
    pointers = [None if t is None else t.data_ptr() for t in (allowed, recent, texts, sizes)]
    code = native.function("beam_open", None)(
        ctypes.addressof(beam), *pointers, size, seen, len(ends), ngram, window, rows, length,
        length_penalty,
    )  # fmt: skip
    native.raise_error(code, "beam_open")
    text = None
    try:
        while found[0] < 0:
            native.call(
                "beam_run", generator.logits, generator.sampler.value, beam.value, found, STEPS
            )
        text = torch.empty(int(found[0]), dtype=torch.int64)
        return text
    finally:
        native.function("beam_close", None)(beam.value, None if text is None else text.data_ptr())
