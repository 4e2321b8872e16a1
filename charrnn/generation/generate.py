"""Texts from prompts: settings are checked, prompts are read, and samples grow chunk by chunk."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from torch import nn

from charrnn.data.charset import Charset
from charrnn.errors import check
from charrnn.generation.context import prefill
from charrnn.generation.decoding import Decoding, is_integer
from charrnn.generation.detokenizer import Detokenizer, encode_prompt
from charrnn.generation.sampler import continue_contexts, generate_chunks

Item = TypeVar("Item")
MOST = 1_000_000
"""Samples of one batch; more would fill the memory before the first character."""


def generate_texts(
    model: nn.Module,
    charset: Charset,
    prompt: str | list[str] = "",
    length: int = 500,
    num_samples: int = 1,
    seed: int | None = None,
    unknown: str = "error",
    **settings,
) -> Iterator[list[str]]:
    """Generate texts chunk by chunk: first the prompt of every sample, then what each chunk adds.

    A sample that has ended, at its length, at a stop string, which it includes, or where the next
    document would begin, adds only empty texts. With unit="byte", a chunk adds the characters that
    its bytes complete.

    Args:
        model: as in :mod:`charrnn.models`; it is left in its training or evaluation mode.
        prompt: of every sample; of a list of N prompts, each has ``num_samples`` samples, which are
            generated in one batch and are those of a call with this prompt.
        length: characters after the prompt (bytes with unit="byte").
        seed: None draws one for each prompt.
        unknown: as in :func:`charrnn.generation.detokenizer.encode_prompt`.
        settings: those of :class:`charrnn.generation.decoding.Decoding`.

    Returns:
        An iterator of lists of ``num_samples`` texts, or of N times as many, those of the first
        prompt first.

    Raises:
        InputError: a setting is out of range, or a prompt holds unknown characters; with ``beam``
            and ``no_repeat``, also for a list of prompts. It is raised by the call, before the
            first item is requested.
    """
    check_length(length)
    ok = is_integer(num_samples, 1) and num_samples <= MOST
    check("num_samples", num_samples, ok, f"a whole number, at least 1, at most {MOST:,} at once")
    decoding = Decoding(**settings)
    single = num_samples == 1 or not decoding.beam
    check("num_samples", num_samples, single, "1 with beam, which finds one text")
    decoding.allowed_mask(charset)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    is_text = isinstance(prompts, list | tuple) and all(isinstance(p, str) for p in prompts)
    check("prompt", prompt, is_text, "a text or a list of texts")
    for name in ("beam", "no_repeat"):
        value = getattr(decoding, name)
        ok = value is None or len(prompts) == 1
        check(name, value, ok, "null with several prompts; give them one by one")
    indices = [encode_prompt(charset, each, unknown) for each in prompts]
    seeds = [check_seed(seed) for _ in prompts]
    return _generate_texts(model, charset, indices, length, num_samples, seeds, decoding)


def _generate_texts(
    model: nn.Module,
    charset: Charset,
    prompts: list[np.ndarray],
    length: int,
    num_samples: int,
    seeds: list[int],
    decoding: Decoding,
) -> Iterator[list[str]]:
    begun = [text for prompt in prompts for text in [charset.decode(prompt)] * num_samples]
    yield begun
    if not length or not begun:
        return
    detokenizers = [Detokenizer(charset, decoding.stops) for _ in begun]
    with evaluation_mode(model):
        contexts, done = [prefill(model, charset, prompt) for prompt in prompts], 0
    if decoding.beam:
        chunks = generate_chunks(model, charset, contexts[0], 1, seeds[0], decoding, length)
    else:
        chunks = continue_contexts(model, charset, contexts, num_samples, seeds, decoding, length)
    for chunk in in_evaluation_mode(model, chunks):
        done += len(chunk)
        rows = chunk.t().numpy()
        yield [decode(row, done == length) for decode, row in zip(detokenizers, rows)]
        if all(detokenizer.ended for detokenizer in detokenizers):
            return


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back at the end."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def in_evaluation_mode(model: nn.Module, steps: Iterator[Item]) -> Iterator[Item]:
    """Make each item in evaluation mode; between two of them the model is as the caller has it.

    So that two iterators over one model, read in turns, do not change each other's mode.
    """
    while True:
        with evaluation_mode(model):
            try:
                item = next(steps)
            except StopIteration:
                return
        yield item


def check_length(length: int) -> None:
    """Raise InputError unless a length is a whole number, at least 0."""
    check("length", length, is_integer(length, 0), "a whole number, at least 0")


def check_seed(seed: int | None) -> int:
    """Return the seed, or draw one where it is None. Raises InputError where it is out of range."""
    in_range = seed is None or (is_integer(seed, 0) and seed < 2**64)
    check("seed", seed, in_range, "a whole number, at least 0 and below 2**64, or null")
    return secrets.randbits(32) if seed is None else seed
