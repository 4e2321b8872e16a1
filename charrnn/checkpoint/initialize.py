"""Initializing a run from another checkpoint: its weights, matched by character, or its charset."""

from pathlib import Path

import torch
from torch import nn

from charrnn.checkpoint.build import model_state_dict, report_mismatch
from charrnn.checkpoint.format import read
from charrnn.data.charset import Charset
from charrnn.errors import InputError, format_value


def initialize_model(model: nn.Module, charset: Charset, path: str | Path) -> int:
    """Load a checkpoint's weights, with rows of the vocabulary matched by character.

    Characters that the checkpoint does not know keep their current weights. The model may have a
    larger or smaller vocabulary, but must be of the same kind and otherwise of the same sizes.

    Args:
        model: is changed in place.
        charset: the model's.
        path: the checkpoint.

    Returns:
        How many of the charset's characters the checkpoint knows.

    Raises:
        InputError: names the first parameter that does not fit.
    """
    with report_mismatch():
        return _initialize_model(model, charset, path)


def _initialize_model(model: nn.Module, charset: Charset, path: str | Path) -> int:
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
    for name, value in new.items():
        if (axis := model.VOCAB_AXES.get(name)) is not None:
            rows = old[name].index_select(axis, there)
            if rows.numel() * value.size(axis) == value.numel() * rows.size(axis):
                old[name] = value.clone().index_copy_(axis, here, rows)
        if old[name].shape != value.shape:
            raise InputError(
                f"init_from={path}: {name} is {tuple(old[name].shape)} there and"
                f" {tuple(value.shape)} here; the sizes of the model must be the same"
            )
    model.load_state_dict(old)
    return len(pairs) - 1


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
