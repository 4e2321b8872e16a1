"""Settings that act only together with others: a line for each that is given without effect."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from charrnn.cli.overrides import last_value, unquote
from charrnn.errors import escape_control


class Rule(NamedTuple):
    """When keys have no effect."""

    keys: tuple[str, ...]
    acts: Callable[[Mapping], object]
    """Whether they have one, from all settings."""
    otherwise: str


TRAIN = (
    Rule(
        ("data.max_bytes", "data.library"),
        lambda s: s["data"].get("path") is None and s["data"].get("url") is None,
        "on a text of your own: it says how much of Python's library is read",
    ),
    Rule(
        ("data.url", "data.sha256"),
        lambda s: s["data"].get("path") is None,
        "where data.path names the text",
    ),
    Rule(
        ("data.train_fraction",),
        lambda s: s["data"].get("valid_size") is None and not s["data"].get("valid_path"),
        "where data.valid_size or data.valid_path says what validates",
    ),
    Rule(
        ("data.valid_size",),
        lambda s: not s["data"].get("valid_path"),
        "where data.valid_path names what validates",
    ),
    Rule(
        ("data.test_size",),
        lambda s: not s["data"].get("test_path"),
        "where data.test_path names what tests",
    ),
    Rule(
        ("data.newlines", "data.encoding"),
        lambda s: s["data"].get("unit") != "byte",
        "with data.unit=byte, which reads bytes as they are",
    ),
    Rule(
        ("task.rollback_factor", "task.max_rollbacks"),
        lambda s: s["task"].get("on_divergence") == "rollback",
        "unless task.on_divergence=rollback",
    ),
    Rule(
        ("trainer.gradient_clip_algorithm",),
        lambda s: s["trainer"].get("gradient_clip_val"),
        "unless trainer.gradient_clip_val is given",
    ),
)
EVALUATE = (
    Rule(
        ("evaluate.lr", "evaluate.decay", "evaluate.seq_len", "evaluate.dynamic_rows"),
        lambda s: s["evaluate"]["dynamic"] is not None,
        "unless evaluate.dynamic=sgd or rms",
    ),
    Rule(
        ("data.valid_size", "data.test_size"),
        lambda s: s["data"]["path"] is None or s["evaluate"]["split"] not in (None, "all"),
        "where all of data.path is scored; evaluate.split names a part of it",
    ),
)
SAMPLE = (
    Rule(
        ("prompt", "length", "temperature", "top_k", "min_p", "top_p", "allow", "no_repeat", "beam",
         "length_penalty", "precision", "seed", "num_samples", "stop", "unknown", "raw"),
        lambda s: s["score"] is None,
        "with score, which writes no text",
    ),
    Rule(("by", "encoding"), lambda s: s["score"] is not None, "unless score names a file"),
    Rule(("length_penalty",), lambda s: s["beam"] is not None, "unless beam is given"),
    Rule(
        ("seed",),
        lambda s: s["beam"] is None and s["temperature"] != 0,
        "with beam or temperature=0, which draw nothing",
    ),
)  # fmt: skip
OF_A_SWEEP = ("launcher", "hydra/launcher", "hydra.launcher", "hydra.sweep")


def without_effect(given: Iterable[str], settings: Mapping, rules: Iterable[Rule]) -> list[str]:
    """Return a line for each key that is given and has no effect under these settings.

    Args:
        given: ``KEY=VALUE`` as on the command line.
        settings: the whole configuration, in plain containers.
        rules: such as :data:`TRAIN`.
    """
    given, lines = list(given), {}
    for rule in rules:
        for key in rule.keys:
            value = last_value(given, key)
            if value not in (None, "", "null") and not rule.acts(settings):
                lines.setdefault(key, f"{key}={value}: has no effect {rule.otherwise}")
    return [escape_control(line) for line in lines.values()]


def of_a_sweep(given: Iterable[str]) -> list[str]:
    """Return a line for each setting of a sweep that a single run is given."""
    pairs = [argument.lstrip("+").partition("=")[::2] for argument in given]
    return [
        escape_control(f"{key}={unquote(value)}: has no effect on a single run; -m starts a sweep")
        for key, value in pairs
        if any(key == name or key.startswith(f"{name}.") for name in OF_A_SWEEP)
    ]
