"""Building models from checkpoints: the module with its weights, and its charset."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from charrnn import models
from charrnn.checkpoint.format import PREFIX
from charrnn.checkpoint.targets import get_target, is_below, make_importable
from charrnn.data.charset import Charset
from charrnn.errors import InputError
from charrnn.models.ensemble import Ensemble
from charrnn.models.verify import verify_model


def build_model(checkpoint: dict, allow_targets: Sequence[str] = ()) -> tuple[nn.Module, Charset]:
    """Build the model, in evaluation mode, and the charset of a checkpoint's dictionary.

    Args:
        allow_targets: packages, besides :mod:`charrnn.models`, whose classes may be imported.

    Raises:
        InputError: settings, charset and parameters do not match, or the model's class is of a
            package that is not allowed.
    """
    with report_mismatch():
        ours = checkpoint["charrnn"]
        charset = Charset(**ours["charset"])
        settings = dict(ours["settings"]["model"])
        target = settings.pop("_target_")
        kind = find_class(target, allow_targets)
        with torch.random.fork_rng(devices=[]):  # leave the caller's random state unchanged
            model = kind(vocab_size=len(charset), **settings)
        if not is_below(target, [models.__name__]):
            verify_model(model, len(charset))
        load_parameters(model, model_state_dict(checkpoint))
        model.boundary = charset.boundary
        return model.eval(), charset


def find_class(target: str, allow_targets: Sequence[str]) -> type[nn.Module]:
    """Import the class of a model.

    Raises:
        InputError: it is neither of :mod:`charrnn.models` nor of an allowed package, or is no
            class.
    """
    package, _, name = target.rpartition(".")
    if is_below(target, allow_targets):
        make_importable(allow_targets)
        kind = get_target("model._target_", target)
    else:
        kind = getattr(models, name, None) if package == models.__name__ else None
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return kind
    if is_below(target, allow_targets) or is_below(target, ["charrnn"]):
        raise InputError(f"model._target_={target}: is no model, a class of torch.nn.Module")
    top = target.partition(".")[0]
    raise InputError(
        f"model._target_={target}: is no model of {models.__name__}; allow_targets=[{top}] allows"
        " it, if you trust that package"
    )


def load_parameters(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load parameters and buffers. Raises InputError, naming the first that is only here or there.

    RuntimeError where shapes differ, as of ``torch``.
    """
    found = model.load_state_dict(state, strict=False)
    name = type(model).__name__
    for keys, where in ((found.missing_keys, "lacks"), (found.unexpected_keys, "also has")):
        if keys:
            raise InputError(
                f"model: the checkpoint {where} {keys[0]}, compared with {name}.state_dict(); load"
                " it with the class that wrote it"
            )


def build_models(
    files: list[Path], checkpoints: list[dict], allow_targets: Sequence[str] = ()
) -> tuple[nn.Module, Charset]:
    """Build the model of one checkpoint, or the ensemble of several that share a charset.

    Args:
        files: the files of the checkpoints, for messages.
        checkpoints: their dictionaries.
        allow_targets: as in :func:`build_model`.

    Raises:
        InputError: as in :func:`build_model`, naming the file where there are several.
    """
    if len(files) == 1:
        return build_model(checkpoints[0], allow_targets)
    members, charset = [], None
    for file, checkpoint in zip(files, checkpoints):
        try:
            member, member_charset = build_model(checkpoint, allow_targets)
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
