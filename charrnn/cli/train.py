"""charrnn train: a run, or the runs of a sweep, from a command line."""

import contextlib
import dataclasses
import logging
import os
import sys
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from charrnn.cli import hydra_internals
from charrnn.cli.arguments import Command
from charrnn.cli.hydra_internals import literal, without_hydra
from charrnn.cli.keys import CONF
from charrnn.cli.overrides import as_typed, escape
from charrnn.cli.schema import HYDRA_TARGETS, check_targets
from charrnn.cli.streams import escaped_record, make_lenient
from charrnn.errors import InputError, escape_control, format_value, one_line
from charrnn.gru import build
from charrnn.training import distributed

# Read by submitit when it loads: the signal with which SLURM announces the end of a job's time.
ENVIRONMENT = {"SUBMITIT_PREEMPT_SIGNAL": "USR1"}


def main(command: Command) -> None:
    """Train as a command line says. Errors of input are raised."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.setLogRecordFactory(escaped_record)
    options = command.options
    with hydra_internals.application(
        "train", CONF, command.config_name, command.config, options.config_dir
    ) as app:
        if options.multirun and (options.cfg or options.info or options.help):
            raise InputError("-m: starts a sweep, of which nothing can be shown; leave out -m")
        if app.show(options, list(command.overrides), command.program.in_text):
            return
        make_lenient()
        ranks = distributed.current_ranks()
        if ranks:
            join_ranks(app, command, ranks)
            return
        config = app.compose(list(command.overrides), options.multirun or None)
        check_hydra(config)
        if OmegaConf.select(config, "model.backend") in ("auto", "native"):
            build.begin()  # while torch and Lightning are imported
        if config.hydra.mode == RunMode.MULTIRUN:
            from charrnn.cli import sweep

            sweep.run(app, command, config)
        else:
            run_single(app, command, config)


def check_hydra(config: DictConfig) -> None:
    """Raise InputError for a class below ``hydra`` that a config may not name."""
    settings = OmegaConf.to_container(config.hydra, resolve=False)
    for part in ("launcher", "sweeper"):
        if not isinstance(settings[part], dict):
            value = format_value(settings[part])
            raise InputError(f"hydra.{part}={value}: is a group; choose by hydra/{part}=NAME")
    check_targets("hydra", settings, config.get("allow_targets") or [], HYDRA_TARGETS)


def run_single(app, command: Command, config: DictConfig, store=None) -> None:
    """Prepare a run, then make its folder, then train.

    Args:
        store: that of the ranks where several processes were started together, else None.
    """
    from charrnn.cli.effects import of_a_sweep

    run = claim_run(command, config)
    given = literal(config.hydra.overrides)
    for line in of_a_sweep([*given["task"], *given["hydra"]]):
        print(line)
    train_in_folder(app, config, run, store)


def claim_run(command: Command, config: DictConfig):
    """Prepare a run, then make its folder; returns a :class:`charrnn.cli.prepare.Run`."""
    from charrnn.cli.checks import check_pairs
    from charrnn.cli.folders import check_name, claim_run_folder, free_run_folder
    from charrnn.cli.prepare import Job, prepare

    given = [str(o).lstrip("+") for o in config.hydra.overrides.hydra]
    is_named = any(o.startswith("hydra.run.dir=") for o in given)
    settings = without_hydra(config)
    overrides = literal(config.hydra.overrides.task)
    check_pairs(settings, overrides)
    requested = Path(config.hydra.run.dir).absolute()
    if command.folder:
        check_name("resume", command.folder)
    job = Job(
        folder=command.folder or free_run_folder(requested, is_named),
        overrides=tuple(map(as_typed, overrides)),
        program=command.program,
        allow_targets=tuple(command.allow_targets),
    )
    run = prepare(settings, job)
    while not (command.folder or claim_run_folder(job.folder)):
        job = dataclasses.replace(job, folder=free_run_folder(requested, is_named))
        run = prepare(settings, job)
    return run


def train_in_folder(app, config: DictConfig, run, store=None) -> None:
    """Train a prepared run in its folder, which no other process uses meanwhile."""
    from charrnn.cli.errors import explain
    from charrnn.cli.fit import train
    from charrnn.cli.report import report_run
    from charrnn.data.files import relative_path
    from charrnn.runs import read_record, run_lock, write_record

    job = run.job
    with read_write(config.hydra):
        config.hydra.run.dir = escape(str(job.folder))

    def task(_: DictConfig) -> None:
        with run_lock(job.folder) as lock:
            if lock is None:
                raise InputError(f"{job.folder}: another process trains there; wait for its end")
            try:
                stopped, _ = train(run, [lock], store)
            except Exception as error:
                reason = explain(error) or f"{type(error).__name__}: {one_line(str(error))}"
                record("failed", reason)
                raise
            state = "stopped" if stopped else "finished"
            write_record(job.folder, list(job.overrides), state, stopped)
            page = report_run(run.config, job.folder, job.program)
            if page and not job.program.is_python:
                print(escape_control(f"report           {relative_path(page)}"))

    def record(state: str, reason: str = "") -> None:
        if (job.folder / "metrics.csv").is_file():
            with contextlib.suppress(OSError):  # of a disk that is full, which was said
                write_record(job.folder, list(job.overrides), state, reason)

    try:
        app.run(config, task)
    except SystemExit:  # interrupted, and saved; now it no longer counts as running
        if read_record(job.folder):  # of an earlier end
            record("running")
        report_run(run.config, job.folder, job.program)
        raise
    except Exception:
        if read_record(job.folder).get("state") == "failed":
            report_run(run.config, job.folder, job.program)
        raise


def join_ranks(app, command: Command, ranks: distributed.Ranks) -> None:
    """A run of several processes that torchrun or SLURM started together.

    Rank zero makes the run's folder, or says why not; the others wait for it.
    """
    if ranks.rank:
        distributed.mute_stdout()
    store = distributed.rendezvous_store()
    if ranks.rank:
        folder = store.get("run").decode()
        store.add("told", 1)
        if folder == "none":
            sys.exit(2)
        config = app.compose(list(command.overrides))
        train_as_follower(command, config, Path(folder), store)
        return
    try:
        config = app.compose(list(command.overrides), command.options.multirun or None)
        check_hydra(config)
        if config.hydra.mode == RunMode.MULTIRUN:
            raise InputError(
                "hydra.mode=MULTIRUN: several processes that were started together make one"
                " run; a sweep starts its own, with trainer.devices"
            )
        run_single(app, command, config, store)
    finally:  # the others wait, unless there is a run; see fit.train
        if store.compare_set("run", "", "none") == b"none":
            distributed.outlast(store, "told", ranks.world_size - 1)


def train_as_follower(command: Command, config: DictConfig, folder: Path, store) -> None:
    """The part of a run in a process of a rank above zero."""
    from charrnn.cli.fit import train
    from charrnn.cli.prepare import Job, prepare

    overrides = tuple(map(as_typed, literal(config.hydra.overrides.task)))
    try:
        run = prepare(without_hydra(config), Job(folder, overrides, command.program))
    except Exception:
        if store.add("failed", 1) > 1:
            sys.exit(1)
        raise
    train(run, [], store)
