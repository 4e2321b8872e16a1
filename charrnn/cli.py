"""What train.py and sample.py share: Hydra, checked settings, and errors in one line."""

import difflib
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path

import hydra
import yaml
from hydra.errors import InstantiationException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from charrnn.errors import InputError

CONF = Path(__file__).resolve().parent.parent / "conf"
TEXTS = ("data.path", "data.url", "data.cache_dir", "resume", "init_from", "checkpoint", "prompt")
"""Keys whose value is taken as it stands, whatever Hydra's grammar would make of it."""
OPEN = ("trainer", "optimizer", "scheduler")
"""Groups whose keys are those of a class of another library: any of them may be set."""


def main(config_name: str, job: Callable, guard: Callable | None = None) -> None:
    """Run a job with the settings of ``conf`` and the command line.

    Args:
        job: called with the settings, in the run's folder made by Hydra.
        guard: called before a single run's folder is made, with the settings and the folder;
            where it raises, nothing was written.

    A wrong setting ends the process with one line and exit code 2, Ctrl-C with 130.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # the errors reach the lines below
    debug = os.environ.get("CHARRNN_TRACEBACK")
    if guard is not None:
        Guard.check = staticmethod(guard)
        sys.argv.append(f"+hydra.callbacks.guard._target_={__name__}.Guard")
    sys.argv[1:] = [as_hydra_reads(arg) for arg in sys.argv[1:]]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as with `sample.py | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug or not (line := explain(error)):
            raise
        sys.stdout.flush()
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


class Guard(Callback):
    """Hydra calls it before it makes a run's folder."""

    check: Callable

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        settings = OmegaConf.masked_copy(config, [k for k in config if k != "hydra"])
        try:
            Guard.check(settings, Path(config.hydra.run.dir))
        except Exception as error:
            # Hydra makes warnings of exceptions here, but lets an exit pass.
            if os.environ.get("CHARRNN_TRACEBACK") or not (line := explain(error)):
                import traceback

                traceback.print_exc()
                sys.exit(1)
            print(f"error: {line}", file=sys.stderr)
            sys.exit(2)


def as_hydra_reads(arg: str) -> str:
    """An override as a person means it.

    Paths and prompts are quoted, so that commas and parentheses in them stand for themselves, and
    keys of ``OPEN`` groups are set whether or not the group's file names them.
    """
    key, equals, value = arg.partition("=")
    if not equals:
        return arg
    if re.fullmatch(rf"({'|'.join(OPEN)})\.\w+", key):
        return f"++{arg}"
    sweeping = {"-m", "--multirun"} & set(sys.argv)
    if key in TEXTS and not sweeping and value not in ("", "null") and value[0] not in "[\"'":
        escaped = re.sub(r"\\*(?=')|\\+$", lambda m: m[0] * 2, value).replace("'", r"\'")
        escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", escaped)
        return f"{key}='{escaped}'"
    return arg


def explain(error: BaseException) -> str | None:
    """One line for an error that a person's input made; None for one of ours."""
    text = str(error)
    if isinstance(error, InputError):
        return one_line(text)
    if match := re.match(r"Could not (?:override|append to|delete) '([^']*)'", text):
        return f"{match[1]}: no such key{nearest(match[1])}"
    if isinstance(error, OmegaConfBaseException) or type(error).__module__.startswith("hydra."):
        if match := re.search(r"Missing mandatory value: (\S+)", text):
            return f"{match[1]}: missing; give {match[1]}=VALUE"
        return one_line(text)
    return None


def one_line(text: str) -> str:
    return " ".join(part.strip() for part in text.splitlines() if part.strip())


def nearest(key: str, known: typing.Iterable[str] | None = None) -> str:
    """A hint at the known key that looks most like one."""
    if known is None:
        known = known_keys()
    known = list(known)
    close = difflib.get_close_matches(key, known, 1)
    if not close:  # the last part alone may be right, in another group
        close = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]][:1]
    return f"; did you mean {close[0]}?" if close else "; --cfg job shows all keys"


def known_keys() -> list[str]:
    """Every key of every file in conf, with its group's name before it."""
    keys = set()

    def collect(node: object, prefix: str) -> None:
        for name, value in (node or {}).items() if isinstance(node, dict) else ():
            if name not in ("defaults", "hydra", "_target_", "_partial_"):
                keys.add(prefix + name)
                collect(value, f"{prefix}{name}.")

    for file in CONF.rglob("*.yaml"):
        group = file.parent.relative_to(CONF).as_posix()
        in_group = group not in (".", "experiment")
        if group != ".":
            keys.add(group)
        collect(yaml.safe_load(file.read_text("utf-8")), f"{group}." if in_group else "")
    return sorted(keys)


def check_settings(settings: dict) -> None:
    """Raise InputError for a key that nothing reads or a value of a wrong type.

    What is read are the parameters of each ``_target_``, and the top-level keys of train.yaml.
    """
    top = set(yaml.safe_load((CONF / "train.yaml").read_text("utf-8"))) - {"defaults", "hydra"}
    top |= {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    for key, value in settings.items():
        if key not in top:
            raise InputError(f"{key}: nothing reads this key{nearest(key)}")
        check_node(key, value)
    kinds = {"seed": int, "resume": str | None, "init_from": str | None}
    for key, kind in kinds.items():
        check_type(key, settings.get(key), kind)
    if settings["seed"] < 0:
        raise InputError(f"seed={settings['seed']} must be at least 0")


def check_node(prefix: str, node: object) -> None:
    """Check the keys under one that may name a ``_target_``, against its parameters."""
    if not isinstance(node, dict):
        if prefix in ("data", "model", "task", "optimizer", "scheduler", "trainer"):
            raise InputError(f"{prefix}={node}: a group of keys, fixed in a run that is resumed")
        return
    if "_target_" not in node:
        for name, value in node.items():
            check_node(f"{prefix}.{name}", value)
            if prefix == "callbacks" and not isinstance(value, dict):
                raise InputError(f"{prefix}.{name}={value}: a callback is a group of keys")
        return
    check_call(hydra.utils.get_object(node["_target_"]), node, f"{prefix}.")


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
            known = [*parameters, *(prefix + p for p in parameters)]
            raise InputError(f"{prefix}{name}: nothing reads this key{nearest(name, known)}")
        check_type(prefix + name, value, hints.get(name, typing.Any))


def check_type(name: str, value: object, hint: object) -> None:
    """Raise InputError unless a value of a config file fits a type hint."""
    if not fits(value, hint):
        parts = typing.get_args(hint) if is_union(hint) else (hint,)
        words = [WORDS.get(part) for part in parts]
        wanted = " or ".join(word for word in words if word) or str(hint)
        raise InputError(f"{name}={value!r} must be {wanted}")


WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    list[str]: "a list of texts",
}


def is_union(hint: object) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def fits(value: object, hint: object) -> bool:
    """Whether a plain value is one of a type hint; what is not plain in the hint fits nothing."""
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


def build(prefix: str, node: DictConfig, *args, **kwargs):
    """``instantiate``, whose errors name the key that they are about."""
    try:
        return hydra.utils.instantiate(node, *args, **kwargs)
    except InstantiationException as error:
        where = re.search(r"full_key: (\S+)", str(error))
        raise named(where[1] if where else prefix, node, error.__cause__ or error) from error


def named(prefix: str, node: DictConfig, error: BaseException) -> Exception:
    """An error of a ``_target_`` as an InputError that begins with the key at fault."""
    text = one_line(str(error))
    if isinstance(error, InputError):
        return InputError(f"{prefix}.{text}" if re.match(r"\w+=", text) else text)
    if not (isinstance(error, ValueError | TypeError) or "Misconfiguration" in repr(error)):
        return error if isinstance(error, Exception) else InputError(text)
    # Other libraries name the value, not the key: the key is the one that holds it.
    for key, value in node.items():
        if isinstance(value, int | float | str) and re.search(
            rf"(?<![\w.-]){re.escape(str(value))}(?![\w.])", text
        ):
            return InputError(f"{prefix}.{key}={value}: {text}")
    return InputError(f"{prefix}: {text}")
