"""From a command line to a configuration and its overrides, in one function."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from charrnn.cli import hydra_internals
from charrnn.cli.overrides import (
    CORPUS_PATHS,
    add_targets,
    escape,
    last_value,
    quote,
    to_hydra,
)  # fmt: skip
from charrnn.cli.schema import conf_yaml
from charrnn.data.files import user_path
from charrnn.errors import InputError, check, escape_control, shell_quote

MODES = ("train", "evaluate")
OWN_CLASSES = ("model", "optimizer", "scheduler")
"""Groups with an option ``own``, for a class that is no option."""


@dataclass(frozen=True)
class Program:
    """How the user started the program, for the commands that it prints."""

    train: str = "charrnn train"
    sample: str = "charrnn sample"
    evaluate: str = "charrnn evaluate"
    is_python: bool = False
    """Whether it was :func:`charrnn.train`."""
    tools: str = "charrnn"
    """What the names of the other commands follow."""

    @classmethod
    def script(cls, path: str) -> "Program":
        """``python train.py`` and ``python sample.py``, from the path of either."""
        names = (str(Path(path).with_name(name)) for name in ("train.py", "sample.py"))
        train, sample = (f"python {shell_quote(name)}" for name in names)
        return cls(train, sample, f"{train} mode=evaluate", tools="python -m charrnn")

    def in_text(self, text: str) -> str:
        """A text that names the scripts, with the commands of an installed program instead."""
        if self.train.endswith("train.py"):
            return text
        for script, command in (
            ("python train.py mode=evaluate", self.evaluate),
            ("python train.py", self.train),
            ("python sample.py", self.sample),
        ):
            text = text.replace(f"{script} ", f"{command} ")
        return text


@dataclass(frozen=True)
class Command:
    """A command line that was read."""

    name: str
    """train, evaluate or sample."""
    program: Program
    arguments: tuple[str, ...]
    """As given."""
    options: argparse.Namespace
    """Hydra's own options."""
    overrides: tuple[str, ...]
    """In Hydra's grammar."""
    config_name: str
    config: dict | None = None
    """The configuration of this name, where it is no file of ``conf/``."""
    kind: str = "new"
    """new, resumed, or reproduced (from the settings of another run)."""
    folder: Path | None = None
    """The folder of a run that is resumed in place."""

    @property
    def allow_targets(self) -> list[str]:
        """``allow_targets=...`` as it was given, for printed commands."""
        return [a for a in self.arguments if a.lstrip("+").startswith("allow_targets=")]


def parse(
    name: str, arguments: Sequence[str], program: Program, environ: Mapping[str, str]
) -> Command:
    """Read a command line.

    ``mode=evaluate`` makes a train command an evaluate command. ``resume=PATH`` takes the settings
    of a run in place of those of ``conf/``; so does ``--config-path RUN/.hydra``, for a new run. A
    job that SLURM has requeued (``SLURM_RESTART_COUNT``) resumes the run of its
    ``hydra.run.dir=``.

    Args:
        name: train, evaluate or sample.
        arguments: what follows the command's name.
        program: how the user started it.
        environ: environment variables.

    Raises:
        InputError: an argument that is no KEY=VALUE, an unknown mode or option, or a run that
            cannot be resumed.
    """
    given = list(arguments)
    if name == "train" and any(a.startswith("mode=") for a in given):
        name = [a.partition("=")[2] for a in given if a.startswith("mode=")][-1]
        if name not in MODES:
            raise InputError(f"mode={name} must be {' or '.join(MODES)}")
        given = [a for a in given if not a.startswith("mode=")]
    options = hydra_internals.parse_options(given, hint_for(name))
    if name == "evaluate" and options.multirun:
        raise InputError("-m: evaluate is no sweep; several checkpoints are checkpoint=[A,B]")
    if options.config_name not in (None, name) and not options.config_path:
        raise InputError(
            f"--config-name {options.config_name}: the settings are those of conf/{name}.yaml;"
            " a preset of your own is experiment=NAME with --config-dir FOLDER"
        )
    overrides = list(options.overrides)
    config_name, config, kind, folder = name, None, "new", None
    if name == "train":
        overrides = as_requeued(overrides, environ)
        path = last_value(overrides, "resume")
        if path not in (None, "", "null"):
            if options.multirun:
                raise InputError(f"resume={path}: goes on with one run; a sweep starts new ones")
            overrides = [a for a in overrides if not a.lstrip("+").startswith("resume=")]
            settings, hydra, folder = resumed(user_path(path).absolute())
            if folder and (other := last_value(overrides, "hydra.run.dir")):
                raise InputError(
                    f"hydra.run.dir={other}: a run that is resumed stays in its folder; leave it"
                    f" out, or begin another one with init_from={path}"
                )
            config_name, config, kind = "resumed", as_config(settings, hydra), "resumed"
        elif options.config_path:
            settings = started_with(user_path(options.config_path).absolute().parent)
            config_name, config, kind = "reproduced", as_config(settings, {}), "reproduced"
        if config and last_value(overrides, "logger") is not None:
            del config["logger"]  # that of the settings, in place of which others are chosen
    if name == "train" and kind == "new":
        overrides = with_own_classes(overrides)
    overrides = add_targets(overrides)
    read = tuple(to_hydra(a, options.multirun) for a in overrides)
    return Command(
        name, program, tuple(arguments), options, read, config_name, config, kind, folder
    )


def hint_for(name: str):
    """A function from an argument that is no KEY=VALUE to the form that it should have."""

    def hint(argument: str) -> str:
        key, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-"):
            return f"{key}={value or 'VALUE'}" if key else "KEY=VALUE"
        path = quote(argument) if set(argument) & set(" '\"") else argument
        is_run = name != "train" or (Path(argument) / ".hydra").is_dir()
        key = "data.path" if not is_run else "resume" if name == "train" else "checkpoint"
        return f"{key}={path}"

    return hint


def with_own_classes(overrides: list[str]) -> list[str]:
    """The overrides with ``model=own``, an empty option, where ``model._target_`` names the class;
    so for an optimizer and a scheduler.

    What the class gets is then what these overrides give, and no key of the default option.
    """
    keys = {a.partition("=")[0].lstrip("+") for a in overrides}
    own = [g for g in OWN_CLASSES if f"{g}._target_" in keys and g not in keys]
    return [*(f"{group}=own" for group in own), *overrides]


def as_requeued(overrides: list[str], environ: Mapping[str, str]) -> list[str]:
    """The overrides of a job that SLURM started again: its run is resumed where there is one."""
    folder = last_value(overrides, "hydra.run.dir")
    restarts = environ.get("SLURM_RESTART_COUNT") or "0"
    check("SLURM_RESTART_COUNT", restarts, restarts.isdecimal(), "a whole number")
    if not int(restarts) or folder is None:
        return overrides
    if not (user_path(folder) / ".hydra").is_dir():
        return overrides
    allowed = [a for a in overrides if a.lstrip("+").startswith("allow_targets=")]
    return [f"resume={folder}", *allowed]


def resumed(path: Path) -> tuple[dict, dict, Path | None]:
    """The settings with which a run goes on, those of Hydra, and its folder.

    The folder is None for a checkpoint outside a run's folder, which a new run goes on from.
    """
    from charrnn import checkpoint

    if (path / ".hydra").is_dir() and not list((path / "checkpoints").glob("*.ckpt")):
        # It ended before its first checkpoint: from the beginning, with the same settings.
        file, run, settings = None, path, started_with(path)
        line = f"{path}: no checkpoint was saved there; starting again from the beginning"
        print(escape_control(line), file=sys.stderr)
    else:
        file = (
            checkpoint.find_resumable(path) if path.is_dir() else checkpoint.find_checkpoint(path)
        )
        saved = checkpoint.read(file)
        ours = saved["charrnn"]
        is_whole = "optimizer_states" in saved  # not where ModelCheckpoint saved weights only
        if not is_whole or "carry" not in ours or "trainer" not in ours["settings"]:
            raise InputError(f"resume={file}: holds a model only; use init_from={file}")
        settings = ours["settings"] | {"init_from": None}
        in_place = path.is_dir() or file.parent.name == "checkpoints"
        run = file.parent.parent if in_place else None
    hydra = {} if run is None else {"run": {"dir": escape(str(run))}, "output_subdir": None}
    return settings | {"resume": str(file) if file else None}, hydra, run


def as_config(settings: dict, hydra: dict) -> dict:
    """Settings as a configuration, with what ``conf/train.yaml`` says of Hydra.

    ``allow_targets`` is that of ``conf/train.yaml``, not what the settings would have allowed.
    """
    ours = conf_yaml("train")
    return {
        **escape(settings),
        "allow_targets": ours["allow_targets"],
        "defaults": [{"logger": []}, "_self_", {"override hydra/job_logging": "stdout"}],
        "hydra": {"sweep": ours["hydra"]["sweep"]} | hydra,
    }


def started_with(run: Path) -> dict:
    """The settings with which a run was started, their paths absolute.

    Raises InputError where they are not complete.
    """
    from charrnn import checkpoint

    try:
        settings = OmegaConf.to_container(OmegaConf.load(run / ".hydra" / "config.yaml"))
        settings = checkpoint.update_settings(settings)
        hydra = hydra_internals.literal(OmegaConf.load(run / ".hydra" / "hydra.yaml"))
        folder = Path(hydra["hydra"]["runtime"]["cwd"])
        for key in CORPUS_PATHS:
            settings["data"][key] = absolute(settings["data"].get(key), folder)
        settings["init_from"] = absolute(settings["init_from"], folder)
    except (OSError, TypeError, KeyError, yaml.YAMLError) as error:
        raise InputError(
            f"{run}: no settings of a run there, or it ended before they were written"
        ) from error
    return settings


def absolute(path, folder: Path):
    """A path, or a list of them, relative to a folder, as absolute ones; None stays None."""
    if path is None:
        return None
    if isinstance(path, list):
        return [absolute(part, folder) for part in path]
    return str(folder / user_path(path))
