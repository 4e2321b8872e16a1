"""The sampler: characters after a context, from random numbers that depend on the position only.

B samples, V vocabulary size, N characters.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.data.charset import Charset
from charrnn.errors import check
from charrnn.generation.beam import beam_search
from charrnn.generation.context import RECENT, Context, prefill
from charrnn.generation.decoding import Decoding
from charrnn.generation.filters import filter_probabilities, ngram_mask, sample_next
from charrnn.gru.generate import Generator, Guard, generator_for, supports_model
from charrnn.models import contract
from charrnn.models.state import State, join_rows, repeat_row

CHUNK_SIZES = [1, 1, 2, 4, 8, 16, 32, 64, 64, 64]
"""Characters that the native kernels generate in one call: few at first, so that a stream begins at
once, and 256 together."""
BLOCK = 256
"""Random numbers that are drawn at once."""


class Uniforms:
    """Random numbers for B samples; those of sample i do not depend on B.

    They come from Philox (Salmon et al. 2011), keyed by the seed and the number of the sample and
    counted by the position in the text, so that it makes no difference how a text is divided into
    prompt and continuation.

    Args:
        seed: at least 0, below 2**64.
        num_samples: B.
        position: of the first number, 0 at the beginning of a text.
    """

    def __init__(self, seed: int, num_samples: int, position: int = 0):
        self.generators = []
        for i in range(num_samples):
            key = np.array([seed, i], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key, counter=position // 4))
            generator.random(position % 4)  # one count of Philox is four numbers
            self.generators.append(generator)

    def __call__(self, steps: int) -> Tensor:
        """Return the next numbers in [0, 1), (steps, B) float64."""
        return torch.from_numpy(np.stack([g.random(steps) for g in self.generators], axis=1))


def generate_indices(
    model: nn.Module,
    charset: Charset,
    prompt: np.ndarray,
    num_samples: int,
    seed: int,
    decoding: Decoding | None = None,
) -> Iterator[Tensor]:
    """Generate indices (B,) of the characters after a prompt (N,), without end; B = num_samples."""
    context, decoding = prefill(model, charset, prompt), decoding or Decoding()
    for chunk in generate_chunks(model, charset, context, num_samples, seed, decoding):
        yield from chunk


@torch.inference_mode()
def generate_chunks(
    model: nn.Module,
    charset: Charset,
    context: Context,
    num_samples: int,
    seed: int,
    decoding: Decoding,
    length: int | None = None,
) -> Iterator[Tensor]:
    """Generate the characters after a context in chunks of indices (n, B), B = num_samples.

    Chunks are as long as keeps a stream fluent. Their lengths have no influence on the text.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        length: characters in all; None for no end. Required for a beam search, which returns one
            chunk.
    """
    if decoding.beam:
        yield beam_search(model, charset, context, length, decoding)[:, None]
    else:
        yield from continue_contexts(
            model, charset, [context], num_samples, [seed], decoding, length
        )


@torch.inference_mode()
def continue_contexts(
    model: nn.Module,
    charset: Charset,
    contexts: Sequence[Context],
    num_samples: int,
    seeds: Sequence[int],
    decoding: Decoding,
    length: int | None = None,
) -> Iterator[Tensor]:
    """Generate the characters after several contexts in one batch, in chunks of indices (n, B).

    The B columns are ``num_samples`` of the first context, then those of the second, and so on:
    those of ``generate_chunks`` of each context and its seed.

    Args:
        decoding: no beam search; ``no_repeat`` needs contexts of equal lengths.
        model, length: as in ``generate_chunks``.
    """
    allowed, n, dim = decoding.allowed_mask(charset), decoding.no_repeat, contract.batch_dim(model)
    logits = torch.cat([c.logits for c in contexts]).repeat_interleave(num_samples, 0)
    state = join_rows([repeat_row(c.state, num_samples, dim) for c in contexts], dim)
    native = supports_model(model)
    if native:
        stepper = generator_for(model, logits, state, decoding.precision)
    else:
        expected = "32: the native kernels do not compute this model"
        check("precision", decoding.precision, decoding.precision == 32, expected)
        stepper = Stepper(model, logits, state)
    guards = isinstance(stepper, Generator)
    # Elsewhere the n-gram mask needs each character before the next.
    chunked = native and (guards or not n)
    sizes, later = (CHUNK_SIZES, [max(CHUNK_SIZES)] * 4) if chunked else ([1] * BLOCK,) * 2
    recent = None
    if n:
        recent = np.repeat([c.recent for c in contexts], num_samples, 0).astype(np.int64)
    uniforms = [Uniforms(s, num_samples, c.count) for s, c in zip(seeds, contexts)]
    left = math.inf if length is None else length
    while left:
        for part in torch.cat([draw(BLOCK) for draw in uniforms], 1).split(sizes):
            if left:
                part = part[: min(left, len(part))]
                left -= len(part)
                if n and guards:
                    guard = Guard(n, RECENT, torch.from_numpy(recent))
                    chunk = stepper(part, *decoding.filters, allowed, guard)
                else:
                    mask = ngram_mask(allowed, recent, n, logits.size(1)) if n else allowed
                    chunk = stepper(part, *decoding.filters, mask)
                if n:
                    recent = np.concatenate([recent, chunk.t().numpy()], 1)[:, -RECENT:]
                yield chunk
        sizes = later


class Stepper:
    """Generates characters with any model, in one call of the model for each.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        logits: (B, V) of the first character.
        state: of B rows, before it.
    """

    def __init__(self, model: nn.Module, logits: Tensor, state: State):
        self.model, self.logits, self.state = model, logits, state

    def __call__(self, uniforms: Tensor, *filters: float | Tensor | None) -> Tensor:
        """Generate the next indices (n, B).

        Args:
            uniforms: random numbers in [0, 1), (n, B) float64.
            filters: the arguments of ``filter_probabilities`` after the logits.
        """
        chunk = []
        for uniform in uniforms:
            chunk.append(sample_next(filter_probabilities(self.logits.cpu(), *filters), uniform))
            index = chunk[-1][None].to(self.logits.device)
            logits, self.state = contract.run(self.model, index, self.state)
            self.logits = logits[0]
        return torch.stack(chunk)
