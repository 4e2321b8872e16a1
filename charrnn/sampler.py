"""The sampler: filters, and text from a model, one character after the other.

B samples, V vocabulary size.
"""

import secrets
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.charset import Charset, to_characters
from charrnn.errors import InputError, check

CHUNK = 1000  # characters of a prompt that are read at once


def probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Logits (B, V) to the probabilities that are drawn from, (B, V) float64.

    Args:
        temperature: divides the logits; 0 leaves the likeliest character alone.
        top_k: leave the k likeliest (Fan et al. 2018, arXiv:1805.04833).
        top_p: leave the fewest that together have this probability, after top_k (Holtzman et al.
            2020, arXiv:1904.09751).
    """
    logits = logits.double()
    if temperature == 0:
        return nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).double()
    # Subtracted first, so that a low temperature does not overflow.
    logits = (logits - logits.max(-1, keepdim=True).values) / temperature
    if top_k is not None and top_k < logits.size(-1):
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    chances = logits.softmax(-1)
    if top_p is not None:
        ordered, order = chances.sort(descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        chances = chances.masked_fill(beyond.scatter(-1, order, beyond), 0.0)
        chances = chances / chances.sum(-1, keepdim=True)
    return chances


def check_settings(
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    num_samples: int = 1,
) -> None:
    """Raise InputError, naming the setting, for a value out of range."""

    def whole(value: object, least: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    check("length", length, whole(length, 0), "a whole number, at least 0")
    finite = isinstance(temperature, int | float) and 0 <= temperature < float("inf")
    check("temperature", temperature, finite, "at least 0 (0 takes the likeliest character)")
    check("top_k", top_k, top_k is None or whole(top_k, 1), "a whole number, at least 1, or null")
    in_range = top_p is None or (isinstance(top_p, int | float) and 0 < top_p <= 1)
    check("top_p", top_p, in_range, "above 0, at most 1, or null")
    in_range = seed is None or (whole(seed, 0) and seed < 2**64)
    check("seed", seed, in_range, "a whole number, at least 0 and below 2**64, or null")
    check("num_samples", num_samples, whole(num_samples, 1), "a whole number, at least 1")


def encode_prompt(charset: Charset, prompt: str, unknown: str = "error") -> np.ndarray:
    """Indices of a prompt, (N,).

    Args:
        unknown: what to do with a character outside the alphabet: "error", "skip" it, or
            "replace" it by U+FFFD, index 0.

    Raises:
        InputError: names the character.
    """
    check("unknown", unknown, unknown in ("error", "skip", "replace"), "error, skip or replace")
    if unknown != "replace" and (missing := charset.unknown(prompt)):
        if unknown == "error":
            named = "byte 0x{1:02X}" if charset.unit == "byte" else "{0!r} (U+{1:04X})"
            names = ", ".join(named.format(c, ord(c)) for c in missing[:5])
            raise InputError(
                f"prompt: the model does not know {names}; change it, or say unknown=skip or"
                " unknown=replace"
            )
        # Not every index 0, which a U+FFFD of the prompt has too.
        known = [c not in missing for c in to_characters(prompt, charset.unit)]
        return charset.encode(prompt)[known]
    return charset.encode(prompt)


class Uniforms:
    """Random numbers for each of B samples: sample i is the same however many there are.

    Philox (Salmon et al. 2011) keyed by the seed and the number of the sample.
    """

    def __init__(self, seed: int, num_samples: int):
        keys = [np.array([seed, i], np.uint64) for i in range(num_samples)]
        self.generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def __call__(self, steps: int) -> Tensor:
        """The next numbers in [0, 1), (steps, B) float64."""
        return torch.from_numpy(np.stack([g.random(steps) for g in self.generators], axis=1))


def draw(chances: Tensor, uniforms: Tensor) -> Tensor:
    """One index for each row, (B,), from chances (B, V) and numbers in [0, 1), (B,)."""
    sums = chances.cumsum(-1)
    # Scaled by the sum itself, which rounding leaves a little off 1, and never past the last
    # character that has a chance.
    return torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True)[:, 0]


@torch.inference_mode()
def indices(
    model: nn.Module,
    charset: Charset,
    prompt: np.ndarray,
    num_samples: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Iterator[Tensor]:
    """Characters without end: an iterator of indices (B,), B = num_samples.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        prompt: (N,) indices, all of which the state takes in; where it is empty, the text starts
            as after a newline, or after U+FFFD where the alphabet has none.
    """
    device = model.decoder.weight.device
    context = prompt if len(prompt) else charset.encode("\n")
    state = model.initial_state(1)
    for part in torch.from_numpy(context.astype(np.int64)).to(device).split(CHUNK):
        logits, state = model(part[:, None], state)
    logits = logits[-1].expand(num_samples, -1)
    state = state.expand(-1, num_samples, -1).contiguous()
    uniforms = Uniforms(seed, num_samples)
    while True:
        for uniform in uniforms(256):
            chances = probabilities(logits, temperature, top_k, top_p).cpu()
            index = draw(chances, uniform)
            yield index
            logits, state = model(index[None].to(device), state)
            logits = logits[0]


def texts(
    model: nn.Module,
    charset: Charset,
    prompt: str = "",
    length: int = 500,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: str | list[str] | None = None,
    unknown: str = "error",
) -> Iterator[list[str]]:
    """Texts as they grow: first the prompt for each sample, then what each step adds.

    A sample that has ended, by length or by one of the ``stop`` strings, which is its end, adds
    nothing more. With bytes as characters, a step adds what they complete.

    Args:
        model: as in :mod:`charrnn.models`; left in the mode that it was in.
        length: characters after the prompt (bytes with unit="byte").
        seed: None draws one.
        unknown: as in :func:`encode_prompt`.

    Raises:
        InputError: a setting out of range, or a prompt with a character that the model does not
            know.
    """
    check_settings(length, temperature, top_k, top_p, seed, num_samples)
    stops = [stop] if isinstance(stop, str) else list(stop or [])
    check("stop", stop, all(stops), "without an empty string")
    prompt_indices = encode_prompt(charset, prompt, unknown)
    return _texts(
        model, charset, prompt_indices, length, num_samples, stops,
        secrets.randbits(32) if seed is None else seed,
        {"temperature": temperature, "top_k": top_k, "top_p": top_p},
    )  # fmt: skip


def _texts(model, charset, prompt, length, num_samples, stops, seed, filters):
    yield [charset.decode(prompt)] * num_samples
    if not length:
        return
    decoders = [charset.decoder() for _ in range(num_samples)]
    tails = [""] * num_samples
    keep = max(map(len, stops), default=0)
    running = [True] * num_samples
    was_training = model.training
    model.eval()
    try:
        steps = indices(model, charset, prompt, num_samples, seed, **filters)
        for number, step in enumerate(steps, 1):
            added = [""] * num_samples
            for i, index in enumerate(step.tolist()):
                if running[i]:
                    added[i] = decoders[i](index) + (decoders[i](None) if number == length else "")
                    tails[i] = (tails[i] + added[i])[-keep:] if keep else ""
                    running[i] = not any(tails[i].endswith(s) for s in stops)
            yield added
            if number == length or not any(running):
                return
    finally:
        model.train(was_training)
