"""The keys and options that the files of ``conf/`` know, and hints at the nearest one."""

import difflib
import functools
from collections.abc import Iterable
from pathlib import Path

import yaml

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = next((f for f in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if f.is_dir()), _PACKAGE)
"""The folder of settings: package data of an installed charrnn, beside it in a checkout."""
OWN_COMMANDS = ("sample.yaml", "evaluate.yaml")
"""Files of commands other than train, whose keys are no settings of a run."""


@functools.cache
def conf_yaml(name: str) -> dict:
    """The keys of ``conf/NAME.yaml`` as they stand there; not to be changed."""
    return yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))


def groups() -> list[str]:
    """The groups of ``conf/``."""
    return sorted(f.name for f in CONF.iterdir() if f.is_dir() and f.name != "hydra")


def nearest(key: str, known: Iterable[str] | None = None) -> str:
    """A hint at the known key that looks most like one; of a train command by default."""
    known = known_keys() if known is None else list(known)
    close = difflib.get_close_matches(key, known, 1)
    if not close or "." not in key:  # the last part may be right, in a group
        last = [k.rpartition(".")[2] for k in known]
        part = difflib.get_close_matches(key.rpartition(".")[2], last, 1, 0.6 if not close else 1)
        close = [known[last.index(c)] for c in part] or close
    return f"; did you mean {close[0]}?" if close else "; --cfg job shows all keys"


@functools.cache
def known_keys(command: str = "train") -> list[str]:
    """Every key of a command, with its group's name before it."""
    if f"{command}.yaml" in OWN_COMMANDS:
        return sorted(keys_below(conf_yaml(command)))
    keys = set()
    for file in sorted(CONF.rglob("*.yaml")):
        if (file.name in OWN_COMMANDS and file.parent == CONF) or CONF / "hydra" in file.parents:
            continue
        group = "." if file.parent == CONF else file.relative_to(CONF).parts[0]
        in_group = group not in (".", "experiment", "sweep")
        keys |= {group} - {"."}
        keys |= set(keys_below(yaml.safe_load(file.read_text("utf-8")), in_group * f"{group}."))
    return sorted(keys)


def keys_below(node: object, prefix: str = "") -> list[str]:
    """The dotted keys of a mapping, less those that belong to Hydra."""
    found = []
    for name, value in node.items() if isinstance(node, dict) else ():
        if name not in ("defaults", "hydra", "_target_", "_partial_"):
            found += [prefix + name, *keys_below(value, f"{prefix}{name}.")]
    return found


def options_with(key: str) -> list[str]:
    """The options of a key's group that have the key, as in ``data=stdlib``."""
    group = key.partition(".")[0]
    files = sorted((CONF / group).glob("*.yaml")) if (CONF / group).is_dir() else []
    return [
        f"{group}={file.stem}"
        for file in files
        if key in keys_below(yaml.safe_load(file.read_text("utf-8")), f"{group}.")
    ]
