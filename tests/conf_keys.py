"""Every key of the files of ``conf/``, and every parameter of the project's classes there."""

import inspect

import yaml

from charrnn.cli.keys import CONF
from charrnn.cli.schema import get_target

HYDRAS = ("hydra.help", "hydra.run", "hydra.mode", "hydra.output_subdir", "hydra.sweep.subdir")
"""What the files say of Hydra itself, whatever the command."""
IN_CODE = ("model", "optimizer", "scheduler", "description", "vocab_size", "total_steps")
"""Parameters of the classes that are no settings."""


def leaves(node, prefix=""):
    """The dotted keys below a mapping that have a value, with the values; parameters of classes."""
    own = {}
    target = node.get("_target_", "")
    if target.startswith("charrnn."):
        parameters = inspect.signature(get_target("_target_", target)).parameters
        kinds = {name: p.kind for name, p in parameters.items() if name not in IN_CODE}
        own = {n: parameters[n].default for n, kind in kinds.items() if kind != kind.VAR_KEYWORD}
    for name, value in {**own, **node}.items():
        key = f"{prefix}{name}"
        if name in ("defaults", "_target_", "_partial_", "_recursive_") or key.startswith(HYDRAS):
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def options():
    """The keys of each file, by its name as ``data/text``, with their values."""
    found = {}
    for file in sorted(CONF.rglob("*.yaml")):
        name = file.relative_to(CONF).with_suffix("").as_posix()
        text = file.read_text("utf-8")
        group = name.partition("/")[0] if "/" in name and "@package _global_" not in text else ""
        group = {"hydra": "hydra.sweeper"}.get(group, group)
        found[name] = dict(leaves(yaml.safe_load(text), f"{group}." if group else ""))
    return found


if __name__ == "__main__":
    for name, keys in options().items():
        print(name, *keys)
