"""The sampler: text from a model, one character after the other.

B samples, V vocabulary size, H hidden size, L layers, N characters.
"""

import contextlib
import math
import secrets
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.data.charset import BOUNDARY, Charset
from charrnn.errors import check
from charrnn.generation import beam
from charrnn.generation.decoding import (
    RECENT,
    Decoding,
    draw,
    is_whole,
    probabilities,
    without_repeats,
)
from charrnn.generation.detokenizer import Writer, encode_prompt
from charrnn.gru.generate import generator_for, supports_model

CHUNK = 1000  # characters of a prompt that are read at once
PIECES = [1, 1, 2, 4, 8, 16, 32, 64, 64, 64]  # characters that come at once, 256 together
BLOCK = 256  # random numbers that are made at once


def check_length(length: int) -> None:
    """Raise InputError unless a text can have so many characters."""
    check("length", length, is_whole(length, 0), "a whole number, at least 0")


def check_seed(seed: int | None) -> int:
    """A seed, drawn where it is None. Raises InputError for what is none."""
    in_range = seed is None or (is_whole(seed, 0) and seed < 2**64)
    check("seed", seed, in_range, "a whole number, at least 0 and below 2**64, or null")
    return secrets.randbits(32) if seed is None else seed


class Context(NamedTuple):
    """What a model has read: all that a text needs to go on.

    Attributes:
        state: (L, 1, H) after it.
        logits: (1, V) of the next character.
        recent: (N,) indices of its last characters, ``RECENT`` at most.
        count: of its characters.
    """

    state: Tensor
    logits: Tensor
    recent: np.ndarray
    count: int


@torch.inference_mode()
def read(
    model: nn.Module, charset: Charset, indices: np.ndarray, context: Context | None = None
) -> Context:
    """Take in indices (N,), after a context or as the first of a text.

    Where both are nothing, the text starts as a document does, or, where the charset has none, as
    after a newline, or after U+FFFD where the alphabet has no newline.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
    """
    if context is not None and not len(indices):
        return context
    indices = indices.astype(np.int64)
    count, recent = (0, indices[:0]) if context is None else (context.count, context.recent)
    state = model.initial_state(1) if context is None else context.state
    begun = len(indices) or context is not None
    first = charset.encode(BOUNDARY if charset.documents else "\n").astype(np.int64)
    new = indices if begun else first
    for part in torch.from_numpy(new).to(state.device).split(CHUNK):
        logits, state = model(part[:, None], state)
    recent = np.concatenate([recent, indices])[-RECENT:]
    # Copied, so that it keeps none of the others alive.
    return Context(state, logits[-1].clone(), recent, count + len(indices))


class Uniforms:
    """Random numbers for each of B samples: sample i is the same however many there are.

    Philox (Salmon et al. 2011) keyed by the seed and the number of the sample, counted by the place
    in the text: how a text was divided in prompt and sample makes no difference.

    Args:
        place: of the first number, 0 at the beginning of a text.
    """

    def __init__(self, seed: int, num_samples: int, place: int = 0):
        self.generators = []
        for i in range(num_samples):
            key = np.array([seed, i], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key, counter=place // 4))
            generator.random(place % 4)  # a count of Philox is four numbers
            self.generators.append(generator)

    def __call__(self, steps: int) -> Tensor:
        """The next numbers in [0, 1), (steps, B) float64."""
        return torch.from_numpy(np.stack([g.random(steps) for g in self.generators], axis=1))


def indices(
    model: nn.Module,
    charset: Charset,
    prompt: np.ndarray,
    num_samples: int,
    seed: int,
    decoding: Decoding | None = None,
) -> Iterator[Tensor]:
    """Characters without end after a prompt (N,): an iterator of indices (B,), B = num_samples."""
    context, decoding = read(model, charset, prompt), decoding or Decoding()
    for piece in pieces(model, charset, context, num_samples, seed, decoding):
        yield from piece


@torch.inference_mode()
def pieces(
    model: nn.Module,
    charset: Charset,
    context: Context,
    num_samples: int,
    seed: int,
    decoding: Decoding,
    length: int | None = None,
) -> Iterator[Tensor]:
    """What follows a context, up to ``length``, as many characters at a time as look live.

    Pieces are (n, B), of indices. How the text is cut changes nothing in it.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        length: not None with a beam, whose text is one piece.
    """
    if decoding.beam:
        yield beam.search(model, charset, *context[:3], length, decoding)[:, None]
        return
    allowed, n = decoding.allowed(charset), decoding.no_repeat
    logits = context.logits.expand(num_samples, -1)
    state = context.state.expand(-1, num_samples, -1).contiguous()
    native = supports_model(model)
    steps = (generator_for if native else Steps)(model, logits, state)
    # The guard looks at each character before the next.
    sizes, later = (PIECES, [max(PIECES)] * 4) if native and not n else ([1] * BLOCK,) * 2
    recent = np.tile(context.recent, (num_samples, 1))
    uniforms = Uniforms(seed, num_samples, context.count)
    left = math.inf if length is None else length
    while left:
        for part in uniforms(BLOCK).split(sizes):
            if left:
                part = part[: min(left, len(part))]
                left -= len(part)
                mask = without_repeats(allowed, recent, n, logits.size(1)) if n else allowed
                drawn = steps(part, *decoding.filters, mask)
                if n:
                    recent = np.concatenate([recent, drawn.t().numpy()], 1)[:, -RECENT:]
                yield drawn
        sizes = later


class Steps:
    """The next characters of any model, one call of it for each.

    Called with numbers in [0, 1), (n, B), and what :func:`probabilities` takes, it returns indices
    (n, B).
    """

    def __init__(self, model: nn.Module, logits: Tensor, state: Tensor):
        self.model, self.logits, self.state = model, logits, state

    def __call__(self, uniforms: Tensor, *filters: float | Tensor | None) -> Tensor:
        drawn = []
        for uniform in uniforms:
            drawn.append(draw(probabilities(self.logits.cpu(), *filters), uniform))
            index = drawn[-1][None].to(self.logits.device)
            logits, self.state = self.model(index, self.state)
            self.logits = logits[0]
        return torch.stack(drawn)


def texts(
    model: nn.Module,
    charset: Charset,
    prompt: str = "",
    length: int = 500,
    num_samples: int = 1,
    seed: int | None = None,
    unknown: str = "error",
    **settings,
) -> Iterator[list[str]]:
    """Texts as they grow: first the prompt for each sample, then what each piece adds.

    A sample that has ended, by length, by one of the stop strings, which is its end, or where the
    next document would begin, adds nothing more. With bytes as characters, a piece adds what they
    complete.

    Args:
        model: as in :mod:`charrnn.models`; left in the mode that it was in.
        length: characters after the prompt (bytes with unit="byte").
        seed: None draws one.
        unknown: as in :func:`charrnn.generation.detokenizer.encode_prompt`.
        settings: those of :class:`charrnn.generation.decoding.Decoding`.

    Raises:
        InputError: a setting out of range, or a prompt with a character that the model does not
            know.
    """
    check_length(length)
    check("num_samples", num_samples, is_whole(num_samples, 1), "a whole number, at least 1")
    decoding = Decoding(**settings)
    alone = num_samples == 1 or not decoding.beam
    check("num_samples", num_samples, alone, "1 with beam, which finds one text")
    decoding.allowed(charset)
    prompt_indices = encode_prompt(charset, prompt, unknown)
    return _texts(model, charset, prompt_indices, length, num_samples, check_seed(seed), decoding)


def _texts(model, charset, prompt, length, num_samples, seed, decoding):
    yield [charset.decode(prompt)] * num_samples
    if not length:
        return
    writers = [Writer(charset, decoding.stops) for _ in range(num_samples)]
    with evaluating(model):
        context, drawn = read(model, charset, prompt), 0
        for piece in pieces(model, charset, context, num_samples, seed, decoding, length):
            drawn += len(piece)
            rows = piece.t().numpy()
            yield [write(row, drawn == length) for write, row in zip(writers, rows)]
            if all(write.ended for write in writers):
                return


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode, and then in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
