"""Overrides KEY=VALUE: from what is typed to what Hydra's grammar reads, and back."""

import os
import re

from omegaconf import OmegaConf

from charrnn.cli.keys import conf_yaml, groups
from charrnn.errors import InputError

PATHS = (
    "data.path", "data.valid_path", "data.test_path", "data.charset", "data.url", "data.cache_dir",
    "resume", "init_from", "checkpoint", "evaluate.output", "score", "hydra.run.dir",
    "hydra.sweep.dir", "hydra.sweep.subdir",
)  # fmt: skip
"""Keys whose values are paths: the one list of the project."""
PATHS_OF_ENTRIES = r"(callbacks|logger)\.\w+\.(save_dir|dirpath|dir|root_dir)"
"""Those of Lightning's callbacks and loggers, whatever their names."""
CORPUS_PATHS = ("path", "valid_path", "test_path", "charset")
"""Those of ``data`` that name files to read."""
TEXTS = (
    "prompt", "stop", "allow", "callbacks.samples.prompt", "callbacks.neurons.text",
    "data.document", *PATHS,
)  # fmt: skip
"""Keys whose values are taken literally, whatever Hydra's grammar would make of them."""
OPEN_GROUPS = ("task", "model", "trainer", "optimizer", "scheduler")
"""Groups whose keys are the parameters of a class, often of another package: any may be set."""
LISTS = ("data.path", "data.valid_path", "data.test_path", "checkpoint", "score", "stop")
"""Those that take lists."""
ENTRIES = ("callbacks", "logger", "trainer")
"""Groups whose entries may each name a ``_target_``, and to which the user may add."""
LISTED = r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*?)\s*,"""
"""An item of a list, with its quotes, and the comma after it."""


def to_hydra(argument: str, is_sweep: bool = False) -> str:
    """An override as typed, in Hydra's grammar.

    Paths and texts are quoted, so that commas, quotes and brackets stand for themselves; in a list
    of paths, a comma inside a name must be quoted. Keys of ``OPEN_GROUPS`` are set whether or not
    the group's file names them, so that no ``+`` is needed. In a sweep, commas separate the values
    of jobs, each of which is quoted.

    Raises:
        InputError: there is no key before the equals sign.
    """
    key, equals, value = argument.partition("=")
    if not equals:
        return argument
    if not key.strip("+~"):
        raise InputError(f"{argument}: no key before the equals sign; settings are KEY=VALUE")
    if re.fullmatch(rf"({'|'.join(OPEN_GROUPS)}|hydra\.sweeper\.(sampler|pruner))\.\w+", key):
        return f"++{argument}"
    if key == "logger":  # one, several with or without brackets, or none
        names = re.sub(r"[][\s'\"]", "", value)
        if "???" in names:  # a missing value for OmegaConf
            raise InputError(f"{argument}: no such option; --help lists them")
        names = "none" if names in ("", "null", "false") else names
        return f"logger=[{quote_values(names)}]"
    if re.fullmatch(r"\[[^][]+\]", value) and key in groups() and not is_sweep:
        return f"{key}=[{quote_values(value[1:-1])}]"  # of options, also where one is a number
    if key == "allow_targets" and value[:1] not in ("", "["):  # as shells take it without quotes
        return f"{key}=[{value}]"
    bare = key.lstrip("+")
    if not (bare in TEXTS or re.fullmatch(PATHS_OF_ENTRIES, bare)):
        return argument
    in_hydra = bare.startswith("hydra.")
    if not value:
        if in_hydra:
            raise InputError(f"{key}: is empty; name a folder")
        return argument
    if value == "???" and bare not in TEXTS[: -len(PATHS)]:  # a missing value for OmegaConf
        value = "./???"
    if in_hydra:  # may hold interpolations, as Hydra documents for folders
        folder = escape_unknown(os.path.expanduser(value))
        return argument if is_quoted(value) else f"{key}={quote(folder, interpolate=True)}"
    if is_sweep:
        return f"{key}={quote_values(value)}"
    is_list = value[0] + value[-1] == "[]" and bare in LISTS
    if is_list:
        items = re.findall(LISTED, value[1:-1] + ",")
        if all(items) and not any(re.match(r"[\[{]|[^'\"].*\\", item) for item in items):
            items = [item if item[0] in "'\"" else quote(item) for item in items]
            return f"{key}=[{','.join(items)}]"
    is_null = value == "null" and not key.endswith("prompt")
    return argument if is_list or is_null or is_quoted(value) else f"{key}={quote(value)}"


def quote_values(value: str) -> str:
    """The values of the jobs of a sweep, quoted where Hydra's grammar needs it.

    Lists, and functions of Hydra's grammar such as ``choice(...)``, are left as they are.
    """
    if value[0] == "[" or re.match(r"\w+\(.*\)$", value):
        return value
    items = re.findall(LISTED, value + ",")
    number = r"(?i:true|false|[+-]?(?:inf|nan|[\d._]+(?:e[+-]?\d+)?))"  # no text for Hydra
    plain = re.compile(rf"(?!{number}$)[\w./+-]+", re.ASCII)
    return ",".join(i if plain.fullmatch(i) or is_quoted(i) else quote(i) for i in items)


def is_quoted(value: str) -> bool:
    """Whether a value stands in quotes."""
    return len(value) > 1 and value[0] + value[-1] in ("''", '""')


def unquote(value: str) -> str:
    """A value without the quotes that it stands in."""
    quoted = is_quoted(value)
    return value[1:-1].replace(f"\\{value[0]}", value[0]) if quoted else value


def add_targets(arguments: list[str]) -> list[str]:
    """Overrides in which entries of ``ENTRIES`` may be new ones.

    The keys of an entry whose ``_target_`` is given, and of the default callbacks, are set whether
    or not a file names them.
    """
    pattern = rf"(({'|'.join(ENTRIES)})\.(\w+)\.)(\w+)="
    new = {m[1] for a in arguments if (m := re.match(pattern, a)) and m[4] == "_target_"}
    defaults = conf_yaml("train")["callbacks"]

    def is_unlisted(m: re.Match) -> bool:
        return m[2] == "callbacks" and m[3] in defaults and m[4] not in defaults[m[3]]

    matches = [re.match(pattern, a) for a in arguments]
    add = [bool(m) and (m[1] in new or is_unlisted(m)) for m in matches]
    return [f"++{a}" if is_added else a for a, is_added in zip(arguments, add)]


def quote(value: str, interpolate: bool = False) -> str:
    """A string of Hydra's grammar that stands for itself.

    Args:
        interpolate: whether ``${...}`` in it stays an interpolation.
    """
    value = re.sub(r"\\*(?=')|\\+$", lambda match: match[0] * 2, value).replace("'", r"\'")
    return f"'{value if interpolate else escape(value)}'"


def escape(value):
    """A string, or the strings in containers, of which OmegaConf makes no interpolation."""
    if isinstance(value, dict):
        return {key: escape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [escape(part) for part in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value


def escape_unknown(text: str) -> str:
    """A text in which ``${...}`` is an interpolation where it names a setting or a resolver."""
    roots = {*conf_yaml("train"), *groups(), "hydra"}

    def is_known(match: re.Match) -> bool:
        name, colon = match[2], match[3]
        return OmegaConf.has_resolver(name) if colon else name.partition(".")[0] in roots

    pattern = r"(\\*)\$\{\s*([\w.]*)\s*(:?)"
    return re.sub(pattern, lambda m: m[0] if is_known(m) else escape(m[0]), text)


def as_typed(override: str) -> str:
    """An override of Hydra's as it was typed: without the ``++`` that :func:`to_hydra` adds."""
    return re.sub(rf"^\+\+(?=({'|'.join((*OPEN_GROUPS, *ENTRIES))})\.)", "", override)


def last_value(arguments: list[str], key: str) -> str | None:
    """The value of the last ``KEY=VALUE`` (or ``+KEY=VALUE``) with this key, without quotes."""
    values = [a.partition("=")[2] for a in arguments if a.lstrip("+").startswith(f"{key}=")]
    return unquote(values[-1]) if values else None
