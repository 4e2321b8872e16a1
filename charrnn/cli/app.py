"""What train.py and sample.py share: Hydra, its overrides, and the folders of runs and sweeps."""

import contextlib
import copy
import functools
import itertools
import logging
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
import typing
from collections.abc import Callable
from pathlib import Path

import hydra
import hydra._internal.hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from charrnn.cli import errors as messages
from charrnn.cli.schema import CONF, HYDRA_TARGETS, OPEN, check_settings, check_targets
from charrnn.errors import InputError, escape_control
from charrnn.runs import lock, names, records, report
from charrnn.runs import sweep as jobs_of
from charrnn.training import distributed

# A thread that waits in vain for another, whose core somebody else has, gives up its own core soon
# (read by GNU OpenMP when torch loads it). Two runs on two cores at once are twice as fast for it.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# The signal with which submitit lets SLURM announce the end of a job's time; ours as well.
os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")

PATHS = ("data.path", "data.valid_path", "data.test_path", "data.charset", "data.url",
         "data.cache_dir", "resume", "init_from", "checkpoint", "evaluate.output",
         "score")  # fmt: skip
TEXTS = ("prompt", "stop", "allow", "callbacks.samples.prompt", "callbacks.neurons.text",
         "data.document", *PATHS)  # fmt: skip
"""Keys whose value is taken as it stands, whatever Hydra's grammar would make of it."""


held = None
"""The lock of the running job of a sweep."""


def main(config_name: str, job: Callable, guard: Callable | None = None) -> None:
    """Run a job with the settings of ``conf`` and the command line.

    Args:
        job: called with the settings, in the run's folder made by Hydra.
        guard: called before a single run's folder is made, with the settings and the folder;
            where it raises, nothing was written.

    A wrong setting ends the process with one line and exit code 2, Ctrl-C with 130.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # the errors reach the lines below
    Guard.check = staticmethod(guard)
    hydra._internal.hydra.Callbacks = Callbacks
    logging.setLogRecordFactory(messages.visible_record)

    @functools.wraps(job)
    def in_one_line(cfg: DictConfig) -> None:
        if in_sweep():
            return one_of_many(job, cfg)
        with messages.one_line_errors():
            return job(cfg)

    given = list(sys.argv)
    try:
        with messages.one_line_errors():
            read = [as_hydra_reads(arg) for arg in sys.argv[1:]]
            # Between settings Hydra takes an option for the end of them.
            sys.argv[1:] = sorted(read, key=lambda arg: arg not in ("-m", "--multirun"))
            start = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
            start(in_one_line)()
        if Guard.interrupted:
            sys.exit(130)
    finally:
        if Guard.sweep:
            end_of_sweep(Guard.sweep, given)


def newest_run() -> Path:
    """The last checkpoint of the newest run at or below this folder, four folders deep."""
    files = [f for depth in range(5) for f in Path().glob("*/" * depth + "checkpoints/last.ckpt")]
    if not files:
        raise InputError(
            f"checkpoint=latest: no run in {Path.cwd()}; train one with train.py, or give"
            " checkpoint=PATH"
        )
    file = max(files, key=lambda f: f.stat().st_mtime)
    if len(files) > 1:  # by the clock, which may have been set back since: so it is said
        print(f"checkpoint={escape_control(str(file))}", file=sys.stderr)
    return file


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def one_of_many(job: Callable, cfg: DictConfig) -> float | None:
    """A job of a sweep, in its folder alone. An error is its own, and the sweep goes on.

    The error stands in the job's ``.hydra/job.json``, and its traceback, where it is no error of
    input, in ``error.txt``.
    """
    run = Path(HydraConfig.get().runtime.output_dir)
    if with_joblib(HydraConfig.get()) and not Guard.sweep:
        end_with_sweep()
    global held
    with lock.run_lock(run) as held:
        if held is None:
            print(escape_control(f"{run.name}: another process is at it"))
        if held is None or Guard.interrupted:
            return None
        try:
            check_pairs(cfg, overrides())
            return job(cfg)
        except Exception as error:
            line = messages.explain(error)
            if not line:
                with messages.full_disk_passes():
                    (run / "error.txt").write_text(traceback.format_exc(), "utf-8")
                first, *rest = str(error).strip().splitlines() or [""]
                text = f"{first}: {rest[-1].strip()}" if rest else first
                line = f"{type(error).__name__}: {text} (see error.txt there)"
            with messages.full_disk_passes():
                records.write_record(run, overrides(), "failed", line)
            sys.stdout.flush()
            print(escape_control(f"error: {run.name}: {line}"), file=sys.stderr)
            return None
        except (SystemExit, KeyboardInterrupt):
            if not with_joblib(HydraConfig.get()):
                raise
            Guard.interrupted = True  # for the jobs that this worker would get next
            return None


@functools.cache
def end_with_sweep() -> None:
    """Have this worker of joblib's save and end where the sweep's own process dies."""
    sweep = os.getppid()

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        while not Guard.interrupted:  # it saves
            time.sleep(0.1)
        os._exit(128 + signal.SIGTERM)  # instead of waiting for more jobs

    threading.Thread(target=watch, daemon=True).start()


def with_joblib(settings: DictConfig) -> bool:
    """Whether jobs run in joblib's workers."""
    return "joblib" in settings.launcher.get("_target_", "")


def end_of_sweep(sweep: Path, argv: list[str]) -> None:
    """The sweep's answer, whatever ended it; where jobs failed, exit with 1."""
    sys.stdout.flush()
    if not any(sweep.glob("*/.hydra/")):  # refused as a whole
        with contextlib.suppress(OSError):
            (sweep / "multirun.yaml").unlink(missing_ok=True)
            for folder in Guard.made:
                folder.rmdir()
        return
    try:
        jobs = report.report_sweep(sweep)
    except InputError as error:  # a full disk, or one that may not be written
        print(escape_control(f"error: {error}"), file=sys.stderr)
        jobs = jobs_of.read_jobs(sweep)
    if not any(arg.startswith("hydra.sweep.dir=") for arg in argv):
        argv = [*argv, f"hydra.sweep.dir={shown_path(sweep)}"]
    if not all(job.state in records.DONE for job in jobs) or sys.exc_info()[0]:
        print(escape_control(f"start again      {shlex.join(['python', *argv])}"))
    if any(job.state == "failed" for job in jobs) and not sys.exc_info()[0]:
        sys.exit(1)


def shown_path(path: Path) -> str:
    """A path as it is named from here, fit for a terminal."""
    return escape_control(
        str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    )


def overrides() -> list[str]:
    """The overrides of a run, as a person writes them."""
    opened = rf"\+\+(?=({'|'.join(OPEN)})\.)"
    return [re.sub(opened, "", text) for text in HydraConfig.get().overrides.task]


def varied() -> dict:
    """In a sweep the settings in which its jobs differ, else those given on the command line."""
    return names.varied_overrides(
        overrides(), HydraConfig.get().job.config.override_dirname.exclude_keys
    )


class Callbacks(hydra._internal.hydra.Callbacks):
    """Hydra's, which are the first that it makes of what a config names."""

    def __init__(self, config: DictConfig | None = None):
        if config is not None:
            settings = OmegaConf.to_container(config.hydra, resolve=False)
            check_targets("hydra", settings, config.get("allow_targets") or [], HYDRA_TARGETS)
        super().__init__(config)


class Guard(Callback):
    """Hydra calls it before it makes a run's folder; ``conf/train.yaml`` names it."""

    check: Callable
    sweep: Path | None = None
    """The folder of the sweep that this process has started."""
    made: typing.ClassVar[list[Path]] = []
    """It and the folders above it, as far as they were not there before."""
    interrupted = False
    """Whether jobs beside each other were told to save and end."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        with messages.errors_that_exit():
            check_pairs(config, config.hydra.overrides.task)
            Guard.check(without_hydra(config), Path(config.hydra.run.dir))
            claim(config)

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        """What is wrong with every job shows before the first folder."""
        with messages.errors_that_exit():
            if distributed.current_ranks():
                raise InputError(
                    "hydra.mode=MULTIRUN: several processes that were started together make one"
                    " run; a sweep starts its own, with trainer.devices"
                )
            for given in config.hydra.overrides.hydra:
                if given.lstrip("+").startswith("hydra.run.dir="):
                    raise InputError(f"{given}: this is a sweep; name its folder, hydra.sweep.dir=")
            check_settings(OmegaConf.to_container(without_hydra(config), resolve=True))
            claim_sweep(config)


def check_pairs(config: DictConfig, overrides: typing.Iterable[str]) -> None:
    """Raise InputError where a hidden size is given that the settings choose by another key."""
    given = names.split_overrides(list(overrides)).get("model.hidden_size", "")
    budget = OmegaConf.select(config, "model.parameters")
    if given not in ("", "null") and budget:
        raise InputError(
            f"model.parameters={budget}: chooses the hidden size; leave out"
            f" model.hidden_size={given}, or give model.parameters=null"
        )


def without_hydra(config: DictConfig) -> DictConfig:
    """The settings as a job gets them."""
    settings = copy.deepcopy(config)
    with read_write(settings), open_dict(settings):
        del settings["hydra"]
    return settings


def claim(config: DictConfig) -> None:
    """Make a new run's folder its own: of two runs that want one, only one gets it.

    A folder named by the second of the clock gets a number behind it where it is taken; one that
    a person named is an error then.
    """
    if config.hydra.output_subdir is None:  # goes on in its own folder
        return
    run = Path(config.hydra.run.dir).absolute()
    by_hand = any(o.lstrip("+").startswith("hydra.run.dir=") for o in config.hydra.overrides.hydra)
    for number in itertools.count(2):
        try:
            if (run / "checkpoints").exists():
                raise FileExistsError
            (run / config.hydra.output_subdir).mkdir(parents=True)
            break
        except FileExistsError:
            if run.exists() and not run.is_dir():
                raise InputError(f"hydra.run.dir={run}: is a file; name another folder") from None
            if by_hand:
                raise InputError(
                    f"hydra.run.dir={run}: holds a run already; go on with it by resume={run}, or"
                    " name another folder"
                ) from None
            run = Path(f"{config.hydra.run.dir}-{number}").absolute()
        except OSError as error:
            raise InputError(
                f"hydra.run.dir={run}: cannot be made ({error.strerror}); name another folder"
            ) from error
    with read_write(config):
        config.hydra.run.dir = escaped(str(run))


def claim_sweep(config: DictConfig) -> None:
    """Make a sweep's folder, and tell every job of it which keys are the same in all of them.

    A folder that a person named may hold jobs already: the sweep goes on with them.
    """
    by_hand = any(
        o.lstrip("+").startswith("hydra.sweep.dir=") for o in config.hydra.overrides.hydra
    )
    first = folder = Path(config.hydra.sweep.dir).absolute()
    for number in itertools.count(2):
        try:
            Guard.made = [f for f in (folder, *folder.parents) if not f.exists()]
            folder.mkdir(parents=True, exist_ok=by_hand)
            break
        except FileExistsError:
            if by_hand:
                raise InputError(f"hydra.sweep.dir={folder}: is a file; name a folder") from None
            folder = first.with_name(f"{first.name}-{number}")
        except OSError as error:
            raise InputError(
                f"hydra.sweep.dir={folder}: cannot be made ({error.strerror}); name another folder"
            ) from error
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = {o.key_or_group for o in parsed if o.is_sweep_override()}
    fixed = [o.key_or_group for o in parsed if o.key_or_group not in swept]
    quoted = str(folder).replace("\\", "\\\\").replace("'", r"\'")
    with read_write(config):
        config.hydra.sweep.dir = escaped(str(folder))
        # Each job composes its settings anew, from these overrides and its own.
        config.hydra.overrides.hydra += [
            f"hydra.sweep.dir='{escaped(quoted)}'",
            f"hydra.job.config.override_dirname.exclude_keys={fixed}",
        ]
        Guard.sweep = folder
        if with_joblib(config.hydra):
            signal.signal(signal.SIGINT, wait_for_workers)
        take_up_search(config.hydra.sweeper)


def wait_for_workers(number: int, frame) -> None:
    """At Ctrl-C, of which the workers hear as well, let them save; at a second one, end them."""
    Guard.interrupted = True
    signal.signal(signal.SIGINT, signal.default_int_handler)


def take_up_search(sweeper: DictConfig) -> None:
    """Where a search keeps its study in a file: only so many trials as are left of it."""
    if not sweeper.get("storage") or not sweeper.get("study_name"):
        return
    # Advice to those who write programs with the library that optuna uses.
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")
    from charrnn.runs import search

    direction = str(getattr(sweeper.direction, "name", sweeper.direction))
    sweeper.n_trials, count = search.resume_study(
        sweeper.storage, sweeper.study_name, direction, sweeper.n_trials
    )
    if sweeper.sampler.get("seed") is not None:
        sweeper.sampler.seed += count  # the same seed would draw the same values again


def job_folder(sweep: str, number: int, overrides: list, fixed: list) -> str:
    """What ``hydra.sweep.subdir`` is; evaluated by Hydra when a job begins, in its process."""
    return names.job_folder_name(Path(sweep), number, list(overrides), list(fixed))


OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


LISTED = r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*?)\s*,"""
"""A name in a list of them, with its quotes, and the comma after it."""


def as_hydra_reads(arg: str) -> str:
    """An override as a person means it.

    Paths and prompts are quoted, so that commas and parentheses in them stand for themselves; in a
    list of paths, which its commas divide, a comma of a name stands in quotes. Keys of ``OPEN``
    groups are set whether or not the group's file names them.
    """
    key, equals, value = arg.partition("=")
    if not equals:
        return arg
    if not key.strip("+~"):
        raise InputError(f"{arg}: no key before the equals sign; settings are KEY=VALUE")
    if re.fullmatch(rf"({'|'.join(OPEN)})\.\w+", key):
        return f"++{arg}"
    if key not in TEXTS or not value or {"-m", "--multirun"} & set(sys.argv):
        return arg
    ends = value[0] + value[-1]
    is_list = ends == "[]" and not key.endswith("prompt") and key != "allow"
    if is_list and key in PATHS:
        names = re.findall(LISTED, value[1:-1] + ",")
        if all(names) and not any(re.match(r"[\[{]|[^'\"].*\\", name) for name in names):
            names = [name if name[0] in "'\"" else quoted(name) for name in names]
            return f"{key}=[{','.join(names)}]"
    is_null = value == "null" and not key.endswith("prompt")
    if is_list or is_null or (ends in ("''", '""') and len(value) > 1):
        return arg
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """A text as Hydra's grammar reads it, standing for itself."""
    value = re.sub(r"\\*(?=')|\\+$", lambda m: m[0] * 2, value).replace("'", r"\'")
    return f"'{escaped(value)}'"


def escaped(value):
    """A text, or the texts in containers, of which OmegaConf makes no interpolation."""
    if isinstance(value, dict):
        return {key: escaped(part) for key, part in value.items()}
    if isinstance(value, list):
        return [escaped(part) for part in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value


def build(prefix: str, node: DictConfig, *args, **kwargs):
    """``instantiate``, whose errors name the key that they are about."""
    plain = OmegaConf.to_container(node, resolve=True)
    try:
        # Escaped twice: instantiate resolves its settings, and then reads them as it resolves.
        return hydra.utils.instantiate(escaped(escaped(plain)), *args, **kwargs)
    except InstantiationException as error:
        where = re.search(r"full_key: (\S+)", str(error))
        raise messages.named(
            where[1] if where else prefix, node, error.__cause__ or error
        ) from error
