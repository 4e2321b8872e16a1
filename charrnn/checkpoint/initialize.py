"""Initializing a run from another checkpoint: its weights, matched by character, or its charset."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from charrnn.checkpoint.build import model_state_dict, report_mismatch
from charrnn.checkpoint.format import read
from charrnn.data.charset import Charset
from charrnn.errors import InputError, format_value


def initialize_model(
    model: nn.Module,
    charset: Charset,
    path: str | Path,
    build: Callable[[int], nn.Module] | None = None,
) -> int:
    """Load a checkpoint's weights, with rows of the vocabulary matched by character.

    Characters that the checkpoint does not know keep their current weights. The model may have a
    larger or smaller vocabulary, but must be of the same kind and otherwise of the same sizes.

    Args:
        model: is changed in place.
        charset: the model's.
        path: the checkpoint.
        build: function from a vocabulary size to a model of the same kind and sizes. Needed where
            the model's class has no ``VOCAB_AXES``.

    Returns:
        How many of the charset's characters the checkpoint knows.

    Raises:
        InputError: names the first parameter that does not fit.
    """
    with report_mismatch():
        return _initialize_model(model, charset, path, build)


def _initialize_model(model: nn.Module, charset: Charset, path: str | Path, build) -> int:
    checkpoint = read(path)
    theirs = Charset(**checkpoint["charrnn"]["charset"])
    if theirs.unit != charset.unit:
        raise InputError(f"init_from={path}: of data.unit={theirs.unit}, here {charset.unit}")
    old, new = model_state_dict(checkpoint), model.state_dict()
    if old.keys() != new.keys():
        odd = sorted(old.keys() ^ new.keys())[0]
        raise InputError(f"init_from={path}: a model of another kind or depth ({odd})")
    ours = {character: i for i, character in enumerate(charset.alphabet, 1)}
    pairs = [(0, 0)] + [(ours[c], i) for i, c in enumerate(theirs.alphabet, 1) if c in ours]
    here, there = torch.tensor(pairs).t()
    axes = vocab_axes(model, len(charset), build)
    for name, value in new.items():
        if (axis := axes.get(name)) is not None:
            rows = old[name].index_select(axis, there).to(value.dtype)
            if rows.numel() * value.size(axis) == value.numel() * rows.size(axis):
                old[name] = value.clone().index_copy_(axis, here, rows)
        if old[name].shape != value.shape:
            raise InputError(
                f"init_from={path}: {name} is {tuple(old[name].shape)} there and"
                f" {tuple(value.shape)} here; the sizes of the model must be the same"
            )
    model.load_state_dict(old)
    return len(pairs) - 1


def vocab_axes(model: nn.Module, vocab_size: int, build) -> dict[str, int]:
    """Return the parameters with one slice per character, and the axis of the slices.

    These are ``VOCAB_AXES`` of the model's class or else, where ``build`` is given, the axes that
    are longer in a model with one more character.
    """
    if build is None or hasattr(model, "VOCAB_AXES"):
        return getattr(model, "VOCAB_AXES", {})
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        larger = build(vocab_size + 1).state_dict()
    pairs = {
        name: zip(value.shape, larger[name].shape) for name, value in model.state_dict().items()
    }
    grown = {name: [i for i, (a, b) in enumerate(pair) if a != b] for name, pair in pairs.items()}
    return {name: axes[0] for name, axes in grown.items() if axes}


def read_charset(path: str | Path, options: dict) -> Charset:
    """Read the charset of a checkpoint or of a run's folder.

    Args:
        options: how this run reads its text: the arguments of :class:`charrnn.Charset` besides the
            characters.

    Raises:
        InputError: the checkpoint's text was read in another way.
    """
    charset = Charset(**read(path)["charrnn"]["charset"])
    for key, value in charset.options.items():
        if value != options[key]:
            raise InputError(
                f"data.charset={path}: its text was read with {key}={format_value(value)}, here it"
                f" is {format_value(options[key])}; give that in data too"
            )
    return charset
