"""The trainer of a run: its callbacks and loggers, and what of Lightning does not go with them."""

import os

from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    ProgressBar,
    SpikeDetection,
    StochasticWeightAveraging,
)
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities import rank_zero_only

from charrnn import callbacks
from charrnn.cli.instantiate import instantiate
from charrnn.cli.loggers import build_loggers
from charrnn.errors import InputError
from charrnn.training.distributed import current_ranks
from charrnn.training.precision import choose_precision

REFUSED = {
    LearningRateFinder: "tries rates on the run itself; sweep=lr searches for one",
    BatchSizeFinder: "changes the rows during the run; give data.batch_size",
    GradientAccumulationScheduler: "every window is a step; give a larger data.batch_size",
    BackboneFinetuning: "looks for a module `backbone`; one of your own derives from"
    " pytorch_lightning.callbacks.BaseFinetuning",
    SpikeDetection: "cannot read its own state when a run goes on; task.spike_factor= detects"
    " spikes",
    OnExceptionCheckpoint: "saves in the middle of a window; callbacks.checkpoint saves between"
    " two, and the run resumes from there",
    BasePredictionWriter: "has no effect; predict is not called",
}
"""Callbacks of Lightning that do not go with the carry and exact resumption, and why."""


def build_trainer(config: DictConfig, job) -> Trainer:
    """The trainer, with its callbacks and loggers.

    Args:
        job: a :class:`charrnn.cli.prepare.Job`.

    Raises:
        InputError: a callback or logger cannot be built, or does not go with a run.
    """
    if config.trainer.get("precision") == "auto":  # until set_precision, which needs the model
        config = config.copy()
        config.trainer.precision = "32-true"
    check_variables()
    parts = build_callbacks(config, job)
    # Lightning refuses callbacks that save without it, and adds one where there is none.
    own = {}
    if any(isinstance(part, Checkpoint) for part in parts):
        own["enable_checkpointing"] = True
    if current_ranks() is None:
        # Variables of another launcher in the environment, such as RANK, say nothing of this run.
        rank_zero_only.rank = 0
        own["plugins"] = [*(config.trainer.get("plugins") or ()), LightningEnvironment()]
    trainer = instantiate(
        "trainer", config.trainer, default_root_dir=str(job.folder), callbacks=parts,
        logger=build_loggers(config.get("logger"), job.folder),
        use_distributed_sampler=False,  # each process has rows of its own in the stream
        **own,
    )  # fmt: skip
    for part in trainer.checkpoint_callbacks:  # with that of trainer.enable_checkpointing
        if isinstance(part, ModelCheckpoint) and part.dirpath is None:
            part.dirpath = str(job.folder / "checkpoints")  # where a run is looked for
    profiler = trainer.profiler
    if not isinstance(profiler, PassThroughProfiler) and profiler.filename is None:
        # To a file of the run's folder, since Lightning's logs are left out.
        profiler.dirpath, profiler.filename = str(job.folder), "profile"
    return trainer


def check_variables() -> None:
    """Raise InputError for an environment variable that Lightning makes a setting of."""
    for name, value in os.environ.items():
        key = name.removeprefix("PL_TRAINER_").lower()
        if name.startswith("PL_TRAINER_"):
            raise InputError(
                f"{name}={value}: this environment variable would change settings that a run does"
                f" not record; unset it, and give trainer.{key}={value}"
            )


def set_precision(trainer: Trainer, task_model, data, saved: dict | None) -> str:
    """Choose the precision for ``trainer.precision=auto``, say so, and return its name.

    Args:
        data: the datamodule, whose windows are measured.
        saved: of a run that is resumed, which stays in its precision.
    """
    device = trainer.strategy.root_device
    if saved:
        name, why = saved["charrnn"]["settings"]["trainer"]["precision"], "as before"
    elif device.type != "cpu" or trainer.world_size > 1:
        name, why = "32-true", "auto measures on a CPU, in one process"
    else:
        stream = data.stream
        name, why = choose_precision(
            task_model, len(data.corpus.charset), stream.batch_size, stream.seq_len
        )
    if name == "bf16-mixed":
        trainer.strategy.precision_plugin = MixedPrecision(name, device.type)
    print(f"trainer.precision=auto: {name} ({why})")
    return name


def build_callbacks(config: DictConfig, job) -> list[Callback]:
    """The callbacks of a run, in the order of their keys."""
    parts = {key: instantiate(f"callbacks.{key}", v) for key, v in config.callbacks.items() if v}
    for key, part in parts.items():
        if not isinstance(part, Callback):
            target = config.callbacks[key]._target_
            raise InputError(f"callbacks.{key}._target_={target}: is no callback of Lightning's")
        if config.callbacks[key].get("make_pruning_permanent") is False:
            raise InputError(
                f"callbacks.{key}.make_pruning_permanent=false: a checkpoint would have parts that"
                " no model has; leave it out"
            )
        if isinstance(part, StochasticWeightAveraging):
            part = parts[key] = averaging(key, part)
        if isinstance(part, ModelPruning) and config.resume:
            print(
                f"callbacks.{key}: what was pruned is trained until ModelPruning prunes again:"
                " no checkpoint holds its masks, so it is not the very run that was interrupted"
            )
        for kind, why in REFUSED.items():
            if isinstance(part, kind):
                raise InputError(f"callbacks.{key}: {kind.__name__} {why}")
        if isinstance(part, callbacks.Checkpoint):
            part.program, part.program_arguments = job.program.train, job.allow_targets
            if job.program.is_python:
                part.listener.may_exit = False
                part.resume_command = f"run.train() or charrnn.train(resume={str(job.folder)!r})"
    # Averages first, so that those are what the others validate and save at the end.
    found = sorted(parts.values(), key=lambda p: not isinstance(p, StochasticWeightAveraging))
    if job.trial:
        rule = job.trial.pruner["_target_"].rpartition(".")[2]
        found.append(callbacks.Pruning(job.trial.report, rule))
    bars = [part for part in found if isinstance(part, ProgressBar)]
    if not config.trainer.get("enable_progress_bar", True):
        return [part for part in found if part not in bars]
    if len(bars) > 1:  # a bar of the user's takes the position of ours
        return [part for part in found if not isinstance(part, callbacks.Progress)]
    return found


def averaging(key: str, part: Callback) -> callbacks.StochasticWeightAveraging:
    """Ours in place of Lightning's, with its arguments."""
    if type(part) is StochasticWeightAveraging:
        return callbacks.StochasticWeightAveraging.of(part)
    if isinstance(part, callbacks.StochasticWeightAveraging):
        return part
    raise InputError(
        f"callbacks.{key}: {type(part).__name__} is a subclass of Lightning's; make it one of"
        " charrnn.callbacks.StochasticWeightAveraging"
    )


def stop_reason(trainer: Trainer) -> str:
    """Why EarlyStopping or another callback of Lightning ended a run early; empty if none did."""
    for part in trainer.callbacks:
        if at := getattr(part, "stopped_epoch", 0):
            monitor, best = getattr(part, "monitor", ""), getattr(part, "best_score", None)
            value = "" if best is None else f", whose best is {float(best):.4f}"
            return f"in round {at + 1}: {type(part).__name__} of {monitor}{value}"
    return ""
