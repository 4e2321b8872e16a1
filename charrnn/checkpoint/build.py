"""Building models from checkpoints: the module with its weights, and its charset."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from charrnn import models
from charrnn.checkpoint.format import PREFIX
from charrnn.data.charset import Charset
from charrnn.errors import InputError
from charrnn.models.ensemble import Ensemble


def build_model(checkpoint: dict) -> tuple[nn.Module, Charset]:
    """Build the model, in evaluation mode, and the charset of a checkpoint's dictionary.

    Raises:
        InputError: settings, charset and parameters do not match.
    """
    with report_mismatch():
        ours = checkpoint["charrnn"]
        charset = Charset(**ours["charset"])
        settings = dict(ours["settings"]["model"])
        package, _, name = settings.pop("_target_").rpartition(".")
        kind = getattr(models, name, None)
        known = isinstance(kind, type) and issubclass(kind, nn.Module)
        if package != models.__name__ or not known:
            raise InputError(f"model: {package}.{name} is no model of {models.__name__}")
        with torch.random.fork_rng(devices=[]):  # leave the caller's random state unchanged
            model = kind(len(charset), **settings)
        model.load_state_dict(model_state_dict(checkpoint))
        model.boundary = charset.boundary
        return model.eval(), charset


def build_models(files: list[Path], checkpoints: list[dict]) -> tuple[nn.Module, Charset]:
    """Build the model of one checkpoint, or the ensemble of several that share a charset.

    Args:
        files: the files of the checkpoints, for messages.
        checkpoints: their dictionaries.

    Raises:
        InputError: as in :func:`build_model`, naming the file where there are several.
    """
    if len(files) == 1:
        return build_model(checkpoints[0])
    members, charset = [], None
    for file, checkpoint in zip(files, checkpoints):
        try:
            member, member_charset = build_model(checkpoint)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        charset = charset or member_charset
        if member_charset != charset:
            raise InputError(
                f"{file}: of another alphabet than {files[0]}; models that predict together have"
                " the same"
            )
        members.append(member)
    return Ensemble(members).eval(), charset


def model_state_dict(checkpoint: dict) -> dict[str, Tensor]:
    """Return the parameters of a checkpoint under the model's own names."""
    state = checkpoint["state_dict"]
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


@contextlib.contextmanager
def report_mismatch() -> Iterator[None]:
    """Raise InputError for whatever goes wrong with a valid file whose parts do not match."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        raise InputError(
            "the checkpoint's settings, alphabet and weights do not fit one another; give another"
        ) from error
