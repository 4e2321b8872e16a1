"""The sampler: filters, and text from a model, one character after the other.

B samples, V vocabulary size.
"""

import math
import secrets
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.charset import BOUNDARY, Charset
from charrnn.errors import InputError, check
from charrnn.gru import GRU
from charrnn.models import GRUEncode, GRUResize

CHUNK = 1000  # characters of a prompt that are read at once
PIECES = [1, 1, 2, 4, 8, 16, 32, 64, 64, 64]  # characters that come at once, 256 together


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
        known = [c not in missing for c in charset.characters(prompt)]
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
            as a document does, or, where the charset has none, as after a newline, or after U+FFFD
            where the alphabet has no newline.
    """
    for piece in pieces(model, charset, prompt, num_samples, seed, temperature, top_k, top_p):
        yield from piece


@torch.inference_mode()
def pieces(
    model: nn.Module,
    charset: Charset,
    prompt: np.ndarray,
    num_samples: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    length: int | None = None,
) -> Iterator[Tensor]:
    """What :func:`indices` gives, up to ``length``, as many characters at a time as look live.

    Pieces are (n, B). How the text is cut changes nothing in it.
    """
    device = model.decoder.weight.device
    context = prompt if len(prompt) else charset.encode(BOUNDARY if charset.documents else "\n")
    state = model.initial_state(1)
    for part in torch.from_numpy(context.astype(np.int64)).to(device).split(CHUNK):
        logits, state = model(part[:, None], state)
    logits = logits[-1].expand(num_samples, -1)
    state = state.expand(-1, num_samples, -1).contiguous()
    if is_native(model):
        steps, sizes, later = native_steps(model, logits, state), PIECES, [max(PIECES)] * 4
    else:
        steps, sizes, later = Steps(model, logits, state), [1] * 256, [1] * 256
    uniforms = Uniforms(seed, num_samples)
    left = math.inf if length is None else length
    while left:
        for part in uniforms(256).split(sizes):
            if left:
                part = part[: min(left, len(part))]
                left -= len(part)
                yield steps(part, temperature, top_k, top_p)
        sizes = later


class Steps:
    """The next characters of any model, one call of it for each.

    Called with numbers in [0, 1), (n, B), and the filters, it returns indices (n, B).
    """

    def __init__(self, model: nn.Module, logits: Tensor, state: Tensor):
        self.model, self.logits, self.state = model, logits, state

    def __call__(self, uniforms: Tensor, *filters: float | None) -> Tensor:
        drawn = []
        for uniform in uniforms:
            chances = probabilities(self.logits, *filters).cpu()
            drawn.append(draw(chances, uniform))
            index = drawn[-1][None].to(self.logits.device)
            logits, self.state = self.model(index, self.state)
            self.logits = logits[0]
        return torch.stack(drawn)


def is_native(model: nn.Module) -> bool:
    """Whether the kernels sample from a model: they know ours, and nothing of what is changed."""
    parts = [type(part) for part in (model, getattr(model, "gru", None), model.decoder)]
    if parts not in ([GRUEncode, GRU, nn.Linear], [GRUResize, GRU, nn.Linear]):
        return False
    weight = model.decoder.weight
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    types = {parameter.dtype for parameter in model.parameters()}
    plain = types <= {torch.float32} or types <= {torch.float64}
    return plain and not hooks and model.gru.choose_backend(weight.device) == "native"


def native_steps(model: nn.Module, logits: Tensor, state: Tensor):
    """What :class:`Steps` does, by the kernels."""
    from charrnn.gru.generate import Generator

    every = torch.arange(model.decoder.out_features)[:, None]
    decoder = model.decoder.weight, model.decoder.bias
    return Generator(
        *model.features(every), model.gru.all_weights, decoder, state, logits,
        reset=model.gru.reset, gate=model.gru.gate,
    )  # fmt: skip


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
    """Texts as they grow: first the prompt for each sample, then what each piece adds.

    A sample that has ended, by length, by one of the ``stop`` strings, which is its end, or where
    the next document would begin, adds nothing more. With bytes as characters, a piece adds what
    they complete.

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
    writers = [Writer(charset, stops) for _ in range(num_samples)]
    was_training = model.training
    model.eval()
    try:
        drawn = 0
        for piece in pieces(model, charset, prompt, num_samples, seed, **filters, length=length):
            drawn += len(piece)
            rows = piece.t().numpy()
            yield [write(row, drawn == length) for write, row in zip(writers, rows)]
            if all(write.ended for write in writers):
                return
    finally:
        model.train(was_training)


class Writer:
    """One sample's text, piece by piece, up to the first of the stop strings."""

    def __init__(self, charset: Charset, stops: list[str]):
        self.decode, self.stops = charset.decoder(), stops
        self.documents = charset.documents
        self.longest = max(map(len, stops), default=1)
        self.tail = ""  # what may be the beginning of a stop string
        self.ended = False

    def __call__(self, indices: np.ndarray, last: bool) -> str:
        """What indices (n,) add."""
        if self.ended:
            return ""
        added = self.decode(indices) + (self.decode(None) if last else "")
        if self.documents and BOUNDARY in added:
            added, self.ended = added.partition(BOUNDARY)[0], True
        if not self.stops:
            return added
        text = self.tail + added
        ends = [text.find(stop) + len(stop) for stop in self.stops if stop in text]
        self.ended = self.ended or bool(ends)
        start = len(self.tail)
        self.tail = text[max(0, len(text) - self.longest + 1) :]
        return text[start : min(ends, default=None)]
