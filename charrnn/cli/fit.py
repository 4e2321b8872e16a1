"""A prepared run is trained: from its folder's first file to the lines at its end."""

import math
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf, open_dict
from pytorch_lightning.callbacks import Timer

from charrnn import checkpoint
from charrnn.callbacks.loggers import add_text, open_loggers
from charrnn.callbacks.rewind import rewind_checkpoints, rewind_logs
from charrnn.checkpoint.files import remove_scratch
from charrnn.cli.effects import TRAIN, without_effect
from charrnn.cli.errors import explain
from charrnn.cli.loggers import close_loggers, closing
from charrnn.cli.overrides import escape
from charrnn.cli.prepare import Run, prepare
from charrnn.cli.streams import make_lenient
from charrnn.cli.summary import is_spent, next_limit, summary, test_line
from charrnn.data.files import relative_path
from charrnn.errors import Diverged, InputError
from charrnn.models import CharModel
from charrnn.runs import varied_overrides, write_provenance
from charrnn.training import distributed

MANY_PASSES = 100
"""Passes over the text from which on a run says how many it will make."""


def train(run: Run, locks: list, store=None) -> tuple[str, float]:
    """Train in this process, or in processes that it starts for ``trainer.devices``.

    Args:
        locks: of the run's folder, which started processes hold too.
        store: that of the ranks where several processes were started together, else None.

    Returns:
        Why a callback stopped the run early (empty where none did), and the best validation in
        bits per character.
    """
    ranks = distributed.current_ranks()
    if ranks and ranks.rank:
        distributed.mute_stdout()
    make_lenient()
    try:
        if store and not ranks.rank:
            store.set("run", str(run.job.folder))
        if not ranks and (count := run.trainer.num_devices) > 1:
            return distributed.launch(train_rank, count, locks, run.config, run.job)
        return fit(run)
    except Exception:
        if store and store.add("failed", 1) > 1:
            sys.exit(1)  # the first that failed says why
        raise


def train_rank(config, job) -> tuple[str, float]:
    """A run, in one of the processes that :func:`train` started."""
    try:
        return train(prepare(config, job), [])
    except Exception as error:
        if line := explain(error):
            raise InputError(line) from error
        raise


def fit(run: Run) -> tuple[str, float]:
    """Train in this process; returns what :func:`train` does."""
    trainer, task, data, folder = run.trainer, run.task, run.data, run.job.folder
    window = data.stream.batch_size * data.stream.seq_len * trainer.world_size
    if trainer.is_global_zero:
        parameters = sum(p.numel() for p in task.model.parameters())
        corpus = {"sha256": data.corpus.sha256, "characters": len(data.corpus.tokens)}
        overrides = list(run.job.overrides)
        write_provenance(
            folder, overrides=overrides, seed=run.config.seed, corpus=corpus, parameters=parameters
        )
        announce(run, parameters)
        rewind(run, window)
    finished = run.resumed_from and why_finished(run)
    if finished:
        print(f"nothing is left to do: {finished}")
    with closing(trainer.loggers):
        while not finished:
            before = run.resumed_from
            varied = varied_overrides(run.job.overrides, run.job.fixed)
            varied = before["charrnn"].get("varied", {}) if before else varied
            run.task.description["varied"] = varied
            try:
                path = run.config.resume or None
                open_loggers(run.trainer)
                run.trainer.fit(run.task, run.data, ckpt_path=path, weights_only=True)
                finished = True
            except Diverged as error:
                run = roll_back(run, error)
        trainer, task, data = run.trainer, run.task, run.data
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        print(summary(run))
    if trainer.fast_dev_run:
        return task.stopped, math.nan
    if data.test and trainer.limit_test_batches and trainer.is_global_zero:
        print(test_line(run, data.test, trainer.strategy.root_device))
    losses = (loss for windows, loss in task.validations.comparable if windows)
    return task.stopped, min(losses, default=math.nan) / math.log(2)


def announce(run: Run, parameters: int) -> None:
    """Say what is trained on what, and where."""
    task, data = run.task, run.data
    device = run.trainer.strategy.root_device
    where = f"device {device.type}"
    if isinstance(task.model, CharModel):
        with run.trainer.precision_plugin.forward_context():
            where = f"backend {task.model.gru.describe_backend(device, data.stream.batch_size)}"
    if device.type == "cuda":
        tf32 = "TF32" if torch.backends.cudnn.allow_tf32 else "float32"
        where += f" ({tf32} products), matmul_precision={torch.get_float32_matmul_precision()}"
    print(
        f"{type(task.model).__name__}: {parameters:,} parameters, {len(data.corpus.charset)}"
        f" characters, {where}; {len(data.stream.tokens):,} characters train,"
        f" {len(data.stream)} windows in a pass\nrun: {relative_path(run.job.folder, run.job.cwd)}"
    )
    settings = OmegaConf.to_container(run.config, resolve=True)
    for line in without_effect(run.job.overrides, settings, TRAIN):
        print(line)
    passes = planned_windows(run) / len(data.stream)
    if passes > MANY_PASSES:
        print(
            f"the text is short: it will be read {passes:,.0f} times; trainer.max_epochs and"
            " trainer.limit_train_batches say how often"
        )
    for key, corpus in data.corpora.items():
        if corpus.unknown:
            share = f"{corpus.unknown:,} of {len(corpus.tokens):,} characters"
            print(f"{key}: {share} are outside the alphabet, and read as U+FFFD")


def planned_windows(run: Run) -> int:
    """The windows of the whole run; 0 where no limit is set."""
    trainer, limits = run.trainer, []
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    if (trainer.max_epochs or 0) > 0:
        limits.append(trainer.max_epochs * run.data.round_length(trainer.limit_train_batches))
    return min(limits, default=0)


def why_finished(run: Run) -> str:
    """Why a run that is resumed has nothing left to do; empty where it has."""
    ours, trainer = run.resumed_from["charrnn"], run.trainer
    if 0 < (trainer.max_epochs or -1) <= ours["rounds"]:
        return f"{ours['rounds']} rounds are finished"
    if 0 < trainer.max_steps <= ours["windows"]:
        return f"{ours['windows']} windows are finished"
    timer = next((c for c in trainer.callbacks if type(c) is Timer), None)
    state = run.resumed_from["callbacks"].get(timer.state_key) if timer else None
    if state:
        timer.load_state_dict(state)
        if is_spent(timer):
            return f"its time is spent; give more, as {next_limit(run)}"
    return ""


def rewind(run: Run, window: int) -> None:
    """Drop from a run's folder what came after the checkpoint that it goes on from.

    Args:
        window: characters of a window of all rows.
    """
    saved, folder = run.resumed_from, run.job.folder
    for part in (folder, folder / ".hydra", folder / "checkpoints", folder / "tensorboard"):
        remove_scratch(part)
    if saved:
        rewind_checkpoints(run.job.folder / "checkpoints", Path(run.config.resume))
    windows = saved["charrnn"]["windows"] if saved else -1
    rewind_logs(run.job.folder, windows, window, run.trainer.loggers)


def roll_back(run: Run, error: Diverged) -> Run:
    """The run that goes on from before it diverged, at a lower learning rate.

    All else is as the newest checkpoint that was still good has it. Raises the error where there
    may be no rollback, or no such checkpoint.
    """
    task = run.task
    if task.on_divergence == "stop":
        raise error
    if task.rollbacks == task.max_rollbacks:
        raise Diverged(f"{error.what}, after {task.rollbacks} rollbacks", error.good) from error
    try:
        file, windows = checkpoint.find_newest(run.job.folder, error.good)
    except InputError:
        raise error from None
    config = run.config.copy()
    with open_dict(config):
        config.resume, config.init_from = escape(str(file)), None
        config.optimizer.lr *= task.rollback_factor
    number = task.rollbacks + 1
    close_loggers(run.trainer.loggers)
    run = prepare(config, run.job)
    rewind(run, run.data.stream.batch_size * run.data.stream.seq_len)
    run.task.rollbacks, run.task.is_rollback = number, True
    line = (
        f"{error.what}: rollback {number} of {task.max_rollbacks}, to window {windows}, with"
        f" optimizer.lr={config.optimizer.lr:.3g}"
    )
    print(line)
    add_text(run.trainer, "rollback", line, windows)
    return run


def resume_job(run_config, folder: Path):
    """The configuration of a job of a sweep that goes on from its last checkpoint.

    The learning rate is the one that rollbacks have left.
    """
    file = checkpoint.find_resumable(folder)
    config = run_config.copy()
    ours = checkpoint.read(file)["charrnn"]
    with open_dict(config):
        config.resume, config.init_from = escape(str(file)), None
        if ours.get("rollbacks"):
            config.optimizer.lr = ours["settings"]["optimizer"]["lr"]
    return config
