"""Training from Python: settings as keywords, and a run in a process that is the user's."""

import contextlib
import hashlib
import inspect
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from charrnn.checkpoint.files import atomic_write
from charrnn.cli import hydra_internals
from charrnn.cli.arguments import Command, Program, parse
from charrnn.cli.errors import explain
from charrnn.cli.instantiate import get_class
from charrnn.cli.keys import CONF, conf_yaml, groups, keys_below, nearest
from charrnn.cli.overrides import ENTRIES, OPEN_GROUPS, quote, to_hydra
from charrnn.cli.prepare import Run
from charrnn.cli.train import check_hydra, claim_run, train_in_folder
from charrnn.data.cache import cache_folder
from charrnn.errors import InputError
from charrnn.training import distributed

_training = threading.Lock()
"""Held while this process trains: Hydra, the random state and signals are the process's."""


@dataclass(frozen=True)
class Trained:
    """A run that was trained here, to its end or until Ctrl-C."""

    run: Run
    command: Command
    is_interrupted: bool


def train(overrides: Sequence[str], settings: Mapping[str, object]) -> Trained:
    """Train as ``charrnn train`` does with the same settings, inside this process.

    What belongs to the process, such as Hydra's state, warning filters and the random state of
    torch's CPU generator, is restored.

    Args:
        overrides: ``KEY=VALUE`` as on the command line.
        settings: values by key, or by the last part of a key where that names one only.

    Raises:
        InputError: everything that ends the command with one line.
    """
    if distributed.current_ranks():
        raise InputError("charrnn.train: makes one process's run; torchrun and srun: charrnn train")
    if not _training.acquire(blocking=False):
        raise InputError(
            "charrnn.train: another thread of this process trains; wait for it, or start a process"
        )
    command = None
    try:
        with restored_process():
            command, exact = read(overrides, settings)
            with hydra_internals.application(
                "train", CONF, command.config_name, command.config, command.options.config_dir,
                has_logs=False,
            ) as app:  # fmt: skip
                return run(app, command, with_keywords(app, command, exact, settings))
    except Exception as error:
        line = explain(error, command)
        if line is None or isinstance(error, InputError):
            raise
        raise InputError(line) from error
    finally:
        _training.release()


def read(overrides: Sequence[str], settings: Mapping) -> tuple[Command, set[str]]:
    """The command of the overrides and of those keywords that are whole keys, and these keys."""
    top = {*conf_yaml("train"), *groups(), "resume"}
    exact = {key for key in settings if key in top or "." in key}
    whole = {key: value for name in exact for key, value in flat(name, settings[name])}
    given = [*overrides, *(f"{key}={literal(value)}" for key, value in whole.items())]
    command = parse("train", given, Program(is_python=True), {})
    if command.name != "train" or command.options.multirun:
        raise InputError("charrnn.train: trains one run; charrnn train -m makes sweeps")
    return command, exact


def with_keywords(app, command: Command, exact: set[str], settings: Mapping) -> DictConfig:
    """The configuration, with the keywords that name a key by its last part."""
    overrides = list(command.overrides)
    config = app.compose(overrides)
    if rest := [key for key in settings if key not in exact]:
        overrides += [to_hydra(f"{find(key, config)}={literal(settings[key])}") for key in rest]
        config = app.compose(overrides)
    return config


def find(name: str, config: DictConfig) -> str:
    """The key of a configuration that ends in a name.

    Raises:
        InputError: there is none, or several.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    known = [key for key in keys_below(plain) if not key.startswith("hydra.")]
    for group in OPEN_GROUPS:
        known += [
            f"{group}.{key}" for key in inspect.signature(get_class(config[group])).parameters
        ]
    found = sorted({key for key in known if key.rpartition(".")[2] == name})
    if not found:
        raise InputError(f"{name}: no such setting{nearest(name, known)}")
    if len(found) > 1:
        raise InputError(
            f"{name}: may be {' or '.join(found)}; give overrides=['{found[0]}=VALUE']"
        )
    return found[0]


def flat(key: str, value: object) -> Iterator[tuple[str, object]]:
    """The keys of a dictionary of settings, with their values: those of a group's parameters, and
    of the parameters of its entries."""
    parts = 3 if key.partition(".")[0] in ENTRIES else 2
    if isinstance(value, Mapping) and value and key.count(".") < parts - 1:
        for part in value:
            yield from flat(f"{key}.{part}", value[part])
    else:
        yield key, value


def literal(value: object) -> str:
    """A value of Python in Hydra's grammar. Raises InputError for what has no form there."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return quote(str(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(literal, value)) + "]"
    raise InputError(f"{value!r}: a setting is text, a number, a list or a dictionary of them")


def run(app, command: Command, config: DictConfig) -> Trained:
    """Train a composed run; Ctrl-C ends the window, saves, and returns."""
    check_hydra(config)
    if config.hydra.mode == RunMode.MULTIRUN:
        raise InputError("charrnn.train: trains one run; this is a sweep, for charrnn train")
    devices = OmegaConf.select(config, "trainer.devices")
    if devices not in (1, "1", None):
        raise InputError(f"trainer.devices={devices}: several processes are for charrnn train")
    prepared, is_interrupted = claim_run(command, config), False
    try:
        train_in_folder(app, config, prepared)
    except SystemExit as end:
        if end.code != 128 + signal.SIGINT:
            raise
        is_interrupted = True
    return Trained(prepared, command, is_interrupted)


def write_text(text: str) -> Path:
    """Write a text into the cache, under a name that its content determines.

    Raises:
        InputError: it is no text of two characters or more.
    """
    if not isinstance(text, str) or len(text) < 2:
        found = "of 0 or 1 characters" if isinstance(text, str) else f"of {type(text).__name__}"
        raise InputError(f"train: text is {found}; it must be a str of two characters or more")
    content = text.encode("utf-8", "replace")
    name = hashlib.sha256(content).hexdigest()[:16]
    file = cache_folder(None).parent / "texts" / f"{name}.txt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as f:
            f.write(content)
    return file


@contextlib.contextmanager
def of_its_own_settings() -> Iterator[None]:
    """Compute as the run's settings say, also where the caller has gradients off or autocast on."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextlib.contextmanager
def restored_process() -> Iterator[None]:
    """Restore at the end what training changes of the process."""
    streams, hook = (sys.stdout, sys.stderr), threading.excepthook
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    is_main = threading.current_thread() is threading.main_thread()
    # Lightning restores at its end the handlers of signals that it found, which are the run's.
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM) if is_main}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        try:
            with of_its_own_settings():
                yield
        finally:
            sys.stdout, sys.stderr = streams
            threading.excepthook = hook
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
