"""A sweep: its folder, its jobs, and what is printed at its end."""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from charrnn.checkpoint.files import atomic_write, remove_scratch
from charrnn.cli.arguments import Command, Program
from charrnn.cli.checks import check_pairs
from charrnn.cli.errors import BUG, explain
from charrnn.cli.folders import check_name, claim_sweep_folder, remove_empty
from charrnn.cli.hydra_internals import Application, literal, sweep_keys, without_hydra
from charrnn.cli.keys import conf_yaml
from charrnn.cli.overrides import as_typed, quote
from charrnn.cli.prepare import Job
from charrnn.cli.report import report_run
from charrnn.cli.schema import check_settings
from charrnn.cli.search import check_search
from charrnn.cli.streams import prefixed_output, suppress_full_disk
from charrnn.data.files import relative_path
from charrnn.errors import InputError, escape_control, shell_command
from charrnn.runs import (
    DONE,
    Trial,
    free_folder_name,
    job_folder_name,
    job_identity,
    read_job,
    read_jobs,
    read_record,
    report_sweep,
    run_lock,
    write_record,
)  # fmt: skip

interrupted = threading.Event()
"""Whether this process was told to save and end: no further job starts in it."""


def job_folder(sweep: str, number: int, overrides: list, fixed: list, name: str = "") -> str:
    """The value of ``hydra.sweep.subdir``; evaluated by Hydra when a job begins, in its process.

    Args:
        name: that of the user's own ``hydra.sweep.subdir``; a job whose name another has got gets
            a number after it.
    """
    overrides = literal(overrides)
    if name:
        return free_folder_name(Path(sweep), name, overrides)
    return job_folder_name(Path(sweep), number, overrides, list(fixed))


OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def run(app: Application, command: Command, config: DictConfig) -> None:
    """Run the jobs of a sweep, and print what came of them, whatever ended it.

    Raises InputError for what is wrong with every job, before there is a folder; exits with 1 where
    a job failed.
    """
    for given in command.arguments:
        if given.lstrip("+").startswith("hydra.run.dir="):
            raise InputError(f"{given}: this is a sweep; name its folder, hydra.sweep.dir=")
    settings = OmegaConf.to_container(without_hydra(config), resolve=True)
    by_job = [k for k, v in settings.items() if isinstance(v, dict) and v.get("_target_") == "???"]
    check_settings({k: v for k, v in settings.items() if k not in by_job})
    is_named = any(
        str(o).lstrip("+").startswith("hydra.sweep.dir=") for o in config.hydra.overrides.hydra
    )
    check_search(OmegaConf.to_container(config.hydra.sweeper, resolve=True))
    fixed, _ = sweep_keys(literal(config.hydra.overrides.task))
    subdir = literal(config.hydra.sweep)["subdir"]
    if r"\${" in subdir:
        check_name("hydra.sweep.subdir", Path(subdir.replace(r"\${", "${")))
    folder, made = claim_sweep_folder(Path(config.hydra.sweep.dir).absolute(), is_named)
    results = None
    try:
        overrides = [
            *command.overrides,
            "hydra.mode=MULTIRUN",
            f"hydra.sweep.dir={quote(str(folder))}",
            f"hydra.job.config.override_dirname.exclude_keys={fixed}",
        ]
        if subdir != (default := conf_yaml("train")["hydra"]["sweep"]["subdir"]):
            named = default.removesuffix("}") + f",{quote(subdir, interpolate=True)}}}"
            # In double quotes, since Hydra reads the override, kept as text, as an interpolation.
            overrides.append('hydra.sweep.subdir="' + named.replace('"', r"\"") + '"')
        if uses_joblib(config):
            signal.signal(signal.SIGINT, wait_for_workers)
        results = app.multirun(overrides, functools.partial(run_job, command.program, os.getpid()))
        if interrupted.is_set():
            sys.exit(130)
    finally:
        finish(command, folder, made, results)


def finish(command: Command, sweep: Path, made: list[Path], results) -> None:
    """Print a sweep's results and how to start it again; exit with 1 where jobs failed.

    Args:
        results: of the jobs, in the lists of Hydra's basic sweeper; None of other sweepers.
    """
    sys.stdout.flush()
    if not any(sweep.glob("*/.hydra/")):
        remove_empty(sweep, made)
        return
    unwritten = False
    remove_scratch(sweep)
    try:
        jobs = report_sweep(sweep, command.program.train, command.program.tools)
    except InputError as error:  # a full disk, or one that may not be written to
        print(escape_control(f"error: {error}"), file=sys.stderr)
        jobs, unwritten = read_jobs(sweep), True
    arguments = list(command.arguments)
    if not any(argument.startswith("hydra.sweep.dir=") for argument in arguments):
        arguments.append(f"hydra.sweep.dir={relative_path(sweep)}")
    left = any(job.return_value is None for batch in results or () for job in batch)
    if left or not all(job.state in DONE for job in jobs) or sys.exc_info()[0]:
        line = f"start again      {command.program.train} {shell_command(arguments)}"
        print(escape_control(line))
    if (left or unwritten or any(job.state == "failed" for job in jobs)) and not sys.exc_info()[0]:
        sys.exit(1)


def run_job(program: Program, sweep_process: int, config: DictConfig) -> tuple[str, float] | None:
    """A job of a sweep, in its folder, which no other process uses meanwhile.

    A job that is finished is left as it is; one that was begun is resumed. An error is recorded in
    the job's ``.hydra/job.json``, with its traceback in ``error.txt`` where it is a bug, and the
    sweep goes on.

    Args:
        sweep_process: the process that runs the sweep, which may be this one.

    Returns:
        Its state, finished or stopped, and its best validation in bits per character, which a
        search minimizes. None if it failed.
    """
    hydra = HydraConfig.get()
    runtime = literal(hydra.runtime)
    job = Job(
        folder=Path(runtime["output_dir"]),
        cwd=Path(runtime["cwd"]),
        overrides=tuple(map(as_typed, literal(hydra.overrides.task))),
        program=program,
        in_sweep=True,
        trial=trial_of(hydra),
        fixed=tuple(hydra.job.config.override_dirname.exclude_keys),
    )
    with_joblib = uses_joblib(OmegaConf.create({"hydra": hydra}))
    if with_joblib and os.getpid() != sweep_process:
        end_with_sweep(os.getppid())
    named = prefixed_output(job.folder.name) if with_joblib else contextlib.nullcontext()
    with run_lock(job.folder) as lock:
        if lock is None:
            print(escape_control(f"{job.folder.name}: another process trains it"))
        if lock is None or interrupted.is_set():
            return None
        try:
            check_pairs(config, job.overrides)
            with named:
                return train_job(config, job, lock)
        except Exception as error:
            record_failure(job, error)
        except (SystemExit, KeyboardInterrupt):
            if not with_joblib:
                raise
            interrupted.set()
            return None
    # Of a job that failed, when it no longer counts as running.
    report_run(config, job.folder, program)
    return None


def trial_of(hydra: DictConfig) -> Trial | None:
    """The trial of a job, where a search asked for it."""
    number = hydra.sweeper.get("trial")
    if number is None:
        return None
    pruner = OmegaConf.to_container(hydra.sweeper.pruner, resolve=True)
    return Trial(Path(hydra.sweep.dir), number, pruner)


def train_job(config: DictConfig, job: Job, lock) -> tuple[str, float]:
    """Train a job that is not finished; returns what :func:`run_job` does."""
    from charrnn.cli.fit import resume_job, train
    from charrnn.cli.prepare import prepare

    overrides = list(job.overrides)
    check_same_job(job)
    before = read_job(job.folder, 0)
    if before.state in DONE:
        remove_scratch(job.folder)  # of a process that was killed as it ended
        print(f"{job.folder.name}: {before.state} before")
        return before.state, before.best
    write_record(job.folder, overrides, "running")
    if any((job.folder / "checkpoints").glob("*.ckpt")):
        config = resume_job(config, job.folder)
    stopped, best = train(prepare(config, job), [lock])
    state = "stopped" if stopped else "finished"
    write_record(job.folder, overrides, state, stopped)
    report_run(config, job.folder, job.program)
    return state, best


def check_same_job(job: Job) -> None:
    """Raise OtherJob where a job's folder holds a run of other overrides."""
    folder, recorded = job.folder, read_record(job.folder).get("overrides")
    is_new = recorded is None and not any((folder / "checkpoints").glob("*.ckpt"))
    if not is_new and job_identity(recorded or []) != job_identity(list(job.overrides)):
        raise OtherJob(
            f"{folder}: holds another job ({' '.join(recorded or []) or 'not of this sweep'});"
            " hydra.sweep.subdir must name a folder for each, or leave it out"
        )


class OtherJob(InputError):
    """A job whose folder is that of another."""


def record_failure(job: Job, error: Exception) -> None:
    """Record and print why a job failed."""
    if not (line := explain(error)):
        with (
            suppress_full_disk(),
            atomic_write(job.folder / "error.txt", "w", errors="replace") as f,
        ):
            f.write(f"{BUG}\n{traceback.format_exc()}")
        first, *rest = str(error).strip().splitlines() or [""]
        text = f"{first}: {rest[-1].strip()}" if rest else first
        line = f"{type(error).__name__}: {text} (see error.txt there)"
    if not isinstance(error, OtherJob):  # whose record stays
        with suppress_full_disk():
            write_record(job.folder, list(job.overrides), "failed", line)
    sys.stdout.flush()
    print(escape_control(f"error: {job.folder.name}: {line}"), file=sys.stderr)


def uses_joblib(config: DictConfig) -> bool:
    """Whether jobs run in joblib's workers."""
    return "joblib" in config.hydra.launcher.get("_target_", "")


@functools.cache
def end_with_sweep(sweep: int) -> None:
    """Have this worker of joblib save and end where the sweep's own process dies.

    Args:
        sweep: the process that started this one.
    """

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        while not interrupted.is_set():  # it saves
            time.sleep(0.1)
        os._exit(128 + signal.SIGTERM)  # instead of waiting for more jobs

    threading.Thread(target=watch, daemon=True).start()


def wait_for_workers(number: int, frame) -> None:
    """At Ctrl-C, which the workers get as well, let them save; at a second one, end them."""
    interrupted.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
