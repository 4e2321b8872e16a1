"""Settings checked against what reads them: their keys, types, and the classes they may name."""

import inspect
import types
import typing
from collections.abc import Callable

from charrnn.checkpoint.targets import get_target, is_below, make_importable
from charrnn.cli.keys import conf_yaml, groups, nearest
from charrnn.cli.overrides import OPEN_GROUPS
from charrnn.errors import InputError, check, format_value

GROUPS = ("data", "callbacks", "logger", *OPEN_GROUPS)
TARGETS = (
    "charrnn", "torch.nn", "torch.optim", "pytorch_lightning", "lightning_fabric", "lightning"
)  # fmt: skip
"""Packages whose classes a config may name, in addition to those of its allow_targets."""
HYDRA_TARGETS = ("charrnn", "hydra", "hydra_plugins", "optuna")
"""Packages whose classes a config may name below ``hydra``."""


def check_settings(settings: dict) -> None:
    """Raise InputError for a key that nothing reads or a value of a wrong type.

    What is read are the parameters of each ``_target_``, and the top-level keys of train.yaml.
    """
    top = set(conf_yaml("train")) - {"defaults", "hydra"}
    top |= set(groups())
    allowed = settings.get("allow_targets")
    check_type("allow_targets", allowed, list[str])
    make_importable(allowed)
    for key, value in settings.items():
        if key not in top:
            raise InputError(f"{key}: nothing reads this key{nearest(key)}")
        check_targets(key, value, allowed)
        check_node(key, check_model(value) if key == "model" else value)
    for key in ("resume", "init_from"):
        check_type(key, settings.get(key), str | None)
    check_type("seed", seed := settings["seed"], int)
    check("seed", seed, seed >= 0, "at least 0")


def check_targets(
    prefix: str, node: object, allowed: list[str], packages: tuple[str, ...] = TARGETS
) -> None:
    """Raise InputError for a ``_target_``, at any depth, that a config may not name.

    Settings also come from untrusted checkpoints. Only classes are allowed that ``packages`` define
    themselves, and whatever lies in packages of ``allowed``; others are not even imported.
    """
    parts = node.items() if isinstance(node, dict) else ()
    parts = enumerate(node) if isinstance(node, list) else parts
    for name, part in parts:
        check_targets(f"{prefix}.{name}", part, allowed, packages)
    if not isinstance(node, dict) or "_target_" not in node:
        return
    target, key = node["_target_"], f"{prefix}._target_"
    if not isinstance(target, str):
        raise InputError(f"{key}={format_value(target)} must be text")
    if is_below(target, allowed):
        return
    names = ", ".join(packages)
    package = target.partition(".")[0]
    if not is_below(target, packages):
        raise InputError(
            f"{key}={format_value(target)}: not of {names}; allow_targets=[{package}] lets it in"
        )
    found = get_target(key, target)
    home = found.__module__ if isinstance(found, type) else ""
    # Lightning's command line makes whatever it is told to.
    if not is_below(home, packages) or (packages is TARGETS and "cli" in home.split(".")):
        raise InputError(f"{key}={format_value(target)}: no class of {names}; name one")


def check_node(prefix: str, node: object) -> None:
    """Check the keys under one that may name a ``_target_``, against its parameters."""
    if not isinstance(node, dict):
        if prefix in GROUPS:
            raise InputError(
                f"{prefix}={format_value(node)} must be a group of keys; --cfg job shows it"
            )
        return
    if "_target_" not in node:
        for name, value in node.items():
            check_node(f"{prefix}.{name}", value)
            complete = value is None or (isinstance(value, dict) and "_target_" in value)
            if prefix in ("callbacks", "logger") and not complete:
                raise InputError(f"{prefix}.{name}={value} must be null, or name a _target_")
        return
    check_call(get_target(f"{prefix}._target_", node["_target_"]), node, f"{prefix}.")


def check_model(node: object) -> object:
    """Check what every class of a model has; return the arguments to check against the class.

    ``parameters`` chooses the hidden size of any class that has one.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        return node
    kind = get_target("model._target_", node["_target_"])
    from charrnn.models.budget import takes  # imports torch, which help does not need

    if not takes(kind, "vocab_size"):
        raise InputError(
            f"model._target_={node['_target_']}: takes no vocab_size, the characters to predict"
        )
    check_type("model.parameters", node.get("parameters"), int | None)
    if takes(kind, "parameters"):
        return node
    return {key: value for key, value in node.items() if key != "parameters"}


OURS = {"trainer.precision": "auto"}
"""Values that Lightning does not know: charrnn.training.precision."""


def check_call(target: Callable, arguments: dict, prefix: str = "") -> None:
    """Raise InputError unless a target takes these arguments, by name and by type."""
    parameters = inspect.signature(target).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # a class may name in its hints what it imports for type checkers only
        hints = {}
    for name, value in arguments.items():
        if name in ("_target_", "_partial_") or (isinstance(value, dict) and "_target_" in value):
            continue
        if name not in parameters and not takes_all:
            known = [prefix + p for p in parameters]
            raise InputError(
                f"{prefix}{name}: nothing reads this key{nearest(prefix + name, known)}"
            )
        if OURS.get(prefix + name, ...) != value:
            check_type(prefix + name, value, hints.get(name, typing.Any))


def check_type(name: str, value: object, hint: object) -> None:
    """Raise InputError unless a value of a config file fits a type hint, and torch's numbers."""
    bits = 64 if name.rpartition(".")[2] == "seed" else 63
    small = not isinstance(value, int) or abs(value) < 2**bits
    check(name, value, small, f"below 2**{bits}; write larger numbers as 1e30")
    if not fits(value, hint):
        parts = typing.get_args(hint) if is_union(hint) else (hint,)
        words = [WORDS.get(part) for part in parts]
        for part in parts:
            if typing.get_origin(part) is typing.Literal:
                words += map(str, typing.get_args(part))
        expected = " or ".join(dict.fromkeys(filter(None, words))) or str(hint)
        raise InputError(f"{name}={format_value(value)} must be {expected}")


WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    list[str]: "a list of texts",
}


def is_union(hint: object) -> bool:
    """Whether a type hint allows several types."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def fits(value: object, hint: object) -> bool:
    """Whether a plain value is one of a type hint; what is not plain in the hint fits nothing."""
    if hint is typing.Any:
        return True
    if is_union(hint):
        return any(fits(value, part) for part in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    origin = typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (tuple, list) and isinstance(value, list):
        inner = [a for a in typing.get_args(hint) if a is not Ellipsis]
        return not inner or all(any(fits(v, a) for a in inner) for v in value)
    return isinstance(value, origin) if isinstance(origin, type) else True
