"""Where Hydra's private names are touched: its options, composing, single runs and multiruns.

Used instead of ``hydra.main`` because that reads ``sys.argv`` and composes before anything can be
checked; the steps are those of ``hydra._internal.utils._run_hydra`` (hydra-core 1.3).
"""

import argparse
import contextlib
import functools
import io
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from charrnn.errors import InputError

EXPERIMENTAL_RERUN = (
    "--experimental-rerun: reads a pickle, which could run code; reproduce a run by"
    " --config-path RUN/.hydra"
)


def parse_options(arguments: list[str], hint: Callable[[str], str]) -> argparse.Namespace:
    """Hydra's own options, wherever they stand; what is left is in ``overrides``.

    Args:
        hint: from an argument that is neither an option nor KEY=VALUE, such as ``--length=5``, to
            the form that it should have.

    Raises:
        InputError: such an argument.
    """
    parser = get_args_parser()
    known = {name for action in parser._actions for name in action.option_strings}
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        if argument.startswith("-") and argument.partition("=")[0] not in known:
            value = "" if "=" in following else following
            form = hint(argument if "=" in argument or not value else f"{argument}={value}")
            raise InputError(f"{argument}: no such option; settings are KEY=VALUE, here {form}")

    def error(message: str):
        raise InputError(f"{message}; --hydra-help shows Hydra's own options")

    parser.error = error
    options = parser.parse_intermixed_args(arguments)
    if options.experimental_rerun is not None:
        raise InputError(EXPERIMENTAL_RERUN)
    for argument in options.overrides:
        if "=" not in argument and not argument.startswith("~"):
            raise InputError(f"{argument}: settings are KEY=VALUE; did you mean {hint(argument)}?")
    return options


OTHERS = ("matplotlib", "torch")
"""Libraries that tell Hydra's log what nobody has asked, such as that a font cache was made."""


@contextlib.contextmanager
def application(
    name: str,
    conf: Path,
    config_name: str,
    config: dict | None,
    config_dir: str | None,
    has_logs: bool = True,
) -> Iterator["Application"]:
    """Hydra over the folder ``conf``, until the block ends; then it is as it was before.

    Args:
        name: of the job.
        config: a configuration that takes the name ``config_name``, in place of a file.
        config_dir: one more folder of configurations, as ``--config-dir`` names it.
        has_logs: whether Hydra configures the logging of the process.
    """
    globals_, base = GlobalHydra.instance(), version.VersionBase.instance()
    before = globals_.hydra, HydraConfig.instance().cfg, base.version_base
    globals_.clear()
    version.setbase("1.3")
    if config is not None:
        ConfigStore.instance().store(config_name, OmegaConf.create(config))
    search_path = create_automatic_config_search_path(None, None, str(conf))
    if config_dir is not None:
        folder = Path(config_dir).absolute()
        if not folder.is_dir():
            raise InputError(f"--config-dir {config_dir}: no such folder")
        anchor = SearchPathQuery(provider="schema")
        search_path.prepend("command-line", f"file://{folder}", anchor)
    try:
        yield Application(Hydra.create_main_hydra2(name, search_path), config_name, has_logs)
    finally:
        globals_.hydra, HydraConfig.instance().cfg, base.version_base = before


class Application:
    """What a command does with Hydra."""

    def __init__(self, hydra: Hydra, config_name: str, has_logs: bool = True):
        self.hydra, self.config_name, self.has_logs = hydra, config_name, has_logs

    def compose(self, overrides: list[str], multirun: bool | None = None) -> DictConfig:
        """The configuration, with that of Hydra below ``hydra``; ``hydra.mode`` is set.

        Args:
            multirun: None leaves it to the configuration's ``hydra.mode``.
        """
        compose = functools.partial(self.hydra.compose_config, self.config_name)
        config = None
        if multirun is None:
            try:
                config = compose(overrides, RunMode.RUN)
            except Exception:  # a single run refuses several values of one key
                config = compose(overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
                if config.hydra.mode != RunMode.MULTIRUN:
                    raise
            multirun = config.hydra.mode == RunMode.MULTIRUN
        if multirun:
            config = compose([*overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        config = config or compose(overrides, RunMode.RUN)
        config.hydra.mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        if self.has_logs:
            configure_log(config.hydra.hydra_logging, config.hydra.verbose)
            for name in () if config.hydra.verbose else OTHERS:
                logging.getLogger(name).setLevel(logging.WARNING)
        HydraConfig.instance().set_config(config)
        return config

    def run(self, config: DictConfig, task: Callable[[DictConfig], object]) -> object:
        """Run a task once, in the folder ``hydra.run.dir``; returns what it returned."""
        callbacks = Callbacks(config)
        callbacks.on_run_start(config=config, config_name=self.config_name)
        context = HydraContext(config_loader=self.hydra.config_loader, callbacks=callbacks)
        done = run_job(
            task_function=task, config=config, job_dir_key="hydra.run.dir", job_subdir_key=None,
            hydra_context=context, configure_logging=self.has_logs,
        )  # fmt: skip
        callbacks.on_run_end(config=config, config_name=self.config_name, job_return=done)
        # Not ``done.return_value``, which prints the overrides of a failed job first.
        if isinstance(done._return_value, Exception):
            raise done._return_value
        return done._return_value

    def multirun(self, overrides: list[str], task: Callable[[DictConfig], object]) -> object:
        """Run a task for each combination of values, by the sweeper and the launcher.

        Hydra 1.3 instantiates only sweepers of the packages below ``hydra_plugins``, even where
        another class is registered; those of charrnn are instantiated here.
        """
        config = self.hydra.compose_config(self.config_name, overrides, RunMode.MULTIRUN)
        if not config.hydra.sweeper._target_.startswith("charrnn."):
            return self.hydra.multirun(self.config_name, task, overrides)
        callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name=self.config_name)
        sweeper = instantiate(config.hydra.sweeper)
        context = HydraContext(config_loader=self.hydra.config_loader, callbacks=callbacks)
        sweeper.setup(hydra_context=context, task_function=task, config=config)
        sweeper.sweep(OmegaConf.to_container(config.hydra.overrides.task, resolve=False))
        callbacks.on_multirun_end(config=config, config_name=self.config_name)

    def show(
        self,
        options: argparse.Namespace,
        overrides: list[str],
        in_help: Callable[[str], str] = str,
    ) -> bool:
        """Print what the options ask for; False where they ask for nothing but a run.

        Args:
            in_help: applied to the help, which names the scripts of a checkout.
        """
        options.overrides, name, hydra = overrides, self.config_name, self.hydra
        if sys.stdout is None and (options.hydra_help or options.cfg or options.info):
            raise InputError("standard output is closed; there is nowhere to write to")
        if options.help:
            with contextlib.redirect_stdout(io.StringIO()) as help_text:
                hydra.app_help(name, get_args_parser(), options)
            print(in_help(help_text.getvalue()), end="")
        elif options.hydra_help:
            hydra.hydra_help(name, get_args_parser(), options)
        elif options.cfg:
            hydra.show_cfg(name, overrides, options.cfg, options.package, options.resolve)
        elif options.shell_completion:
            hydra.shell_completion(name, overrides)
        elif options.info:
            hydra.show_info(options.info, name, overrides)
        else:
            if options.resolve:
                raise InputError("--resolve: goes with --cfg or --help")
            return False
        return True


def sweep_keys(overrides: list[str]) -> tuple[list[str], list[str]]:
    """The keys of overrides that have one value in all jobs of a sweep, and those that vary."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    varied = {o.key_or_group for o in parsed if o.is_sweep_override()}
    return [o.key_or_group for o in parsed if o.key_or_group not in varied], sorted(varied)


def literal(node) -> list | dict:
    """What a node of Hydra's holds, with ``${`` in overrides and folders as it was given."""
    return OmegaConf.to_container(node, resolve=False)


def without_hydra(config: DictConfig) -> DictConfig:
    """The configuration as a job gets it."""
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
