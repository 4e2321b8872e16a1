"""What cannot be in a run, said in one line before the run has a folder.

Settings are OmegaConf's.
"""

import functools
import inspect
import math
from collections.abc import Mapping

import torch

from charrnn.cli import errors as messages
from charrnn.errors import InputError, check
from charrnn.training import distributed

FIXED = {
    "model": {"dropout", "backend", "parameters"},
    "data": {
        "path", "valid_path", "test_path", "charset", "url", "sha256", "cache_dir", "batch_size",
    },
    "optimizer": None,
    "scheduler": None,
}  # fmt: skip
"""What a resumed run keeps, but for these keys; of optimizer and scheduler only the kind."""


def no_changes(before: dict, now: dict) -> None:
    """Raise InputError for a setting that a resumed run cannot have otherwise."""
    pairs = [("seed", before["seed"], now["seed"]), ("init_from", None, now["init_from"])]
    for group, free in FIXED.items():
        keys = {"_target_"} if free is None else {*before[group], *now[group]} - free
        pairs += [(f"{group}.{k}", before[group].get(k), now[group].get(k)) for k in sorted(keys)]
    for key, old, new in pairs:
        if old != new:
            raise InputError(
                f"{key}={new}: cannot be changed in a run that is resumed (it is {old} there);"
                " start a new one, with init_from=RUN for its weights"
            )


def same_texts(saved: dict, corpus: dict, charset: dict) -> None:
    """Raise InputError for a text or an alphabet other than that of the run that is resumed."""
    before = saved["corpus"]
    for key in ("data.path", "data.valid_path", "data.test_path"):
        old, new = (c if key == "data.path" else c.get(key) for c in (before, corpus))
        if (old is None) != (new is None):
            raise InputError(f"{key}: cannot be {'given' if new else 'left out'} in a resumed run")
        if new and (old["size"], old["sha256"]) != (new["size"], new["sha256"]):
            raise InputError(
                f"resume: the corpus has changed since (it was {old['size']} characters, SHA-256"
                f" {old['sha256'][:12]}...; it is {new['size']}, {new['sha256'][:12]}...);"
                f" give the same text with {key}=FILE"
            )
    if saved["charset"] != charset:
        raise InputError("resume: the alphabet has changed since; give the same with data.charset=")


def key_is(trainer, key: str, ok, wanted: str) -> None:
    """Raise InputError unless a key of the trainer is not set, or ok."""
    value = trainer.get(key)
    check(f"trainer.{key}", value, value is None or ok(value), wanted)


def trainer_keys(trainer) -> None:
    """Raise InputError for what Lightning would refuse, or misunderstand, later."""
    whole = "a whole number, at least 1"
    asked = functools.partial(key_is, trainer)
    asked("accumulate_grad_batches", lambda v: v == 1, "1: every window is a step")
    asked("num_nodes", lambda v: isinstance(v, int) and v >= 1, whole)
    asked(
        "strategy",
        lambda v: (
            "DDPStrategy" in v.get("_target_", "")
            if isinstance(v, Mapping)
            else (v in ("auto", "ddp", "ddp_find_unused_parameters_true"))
        ),
        "auto, ddp, or a DDPStrategy as _target_",
    )
    for key in ("log_every_n_steps", "check_val_every_n_epoch"):
        asked(key, lambda v: v >= 1, whole)
    for key in ("max_epochs", "max_steps"):
        asked(key, lambda v: v == -1 or v >= 1, f"{whole}; -1 for no limit")
    asked("gradient_clip_val", lambda v: 0 <= v < math.inf, "at least 0")
    asked("limit_train_batches", lambda v: v > 0, "above 0: windows of a round, or 1.0 for a pass")
    whole_or_none = "1.0, or 0, which leaves the test out"
    asked("limit_test_batches", lambda v: v == 0 or (type(v) is float and v == 1), whole_or_none)


def lengths(trainer, data) -> None:
    """Raise InputError for a part of a round, or of the validation text, that there is not."""
    asked = functools.partial(key_is, trainer)
    windows = data.round_length(trainer.get("limit_train_batches", 1.0))
    if trainer.get("check_val_every_n_epoch", 1) is not None:
        asked(
            "val_check_interval",
            lambda v: not isinstance(v, str) and 0 < v <= (1 if isinstance(v, float) else windows),
            f"at most the {windows} windows of a round, or a share of it above 0, at most 1.0",
        )
    shortest = 1 / max(1, len(data.validation))
    asked(
        "limit_val_batches",
        lambda v: v >= 0 and (isinstance(v, int) or v == 0 or v >= shortest),
        f"a whole number of windows, or a share of them, at least {shortest:.2g}",
    )


def optimization(cfg, optimizer, scheduler) -> None:
    """Make both for a parameter of no matter, so that a value out of range shows now."""
    rate, decay = cfg.optimizer.get("lr"), cfg.optimizer.get("alpha")
    check("optimizer.lr", rate, rate is None or 0 < rate < math.inf, "above 0")
    check("optimizer.alpha", decay, decay is None or 0 <= decay < 1, "at least 0 and below 1")
    try:
        made = optimizer([torch.zeros(1, requires_grad=True)])
    except (ValueError, TypeError) as error:
        raise messages.named("optimizer", cfg.optimizer, error) from error
    total = {}
    if "total_steps" in inspect.signature(scheduler).parameters:
        limits = (cfg.trainer.get("max_epochs"), cfg.trainer.get("max_steps"))
        ends = any(v is not None and v > 0 for v in limits)
        check("trainer.max_epochs", limits[0], ends, "at least 1 with a rate that falls to an end")
        total = {"total_steps": 1}
    try:
        scheduler(made, **total)
    except (ValueError, TypeError) as error:
        raise messages.named("scheduler", cfg.scheduler, error) from error


def process_count(cfg, trainer) -> None:
    """Raise InputError where the processes are not as many as the trainer's settings say."""
    here = distributed.current_ranks()
    if not here:
        wanted = "1, unless torchrun or srun starts a process for each device"
        check("trainer.num_nodes", trainer.num_nodes, trainer.num_nodes == 1, wanted)
    elif (trainer.num_devices, trainer.num_nodes * here.local_world_size) != (
        here.local_world_size, here.world_size
    ):  # fmt: skip
        raise InputError(
            f"trainer.devices={cfg.trainer.devices}: {here.world_size} processes were started,"
            f" {here.local_world_size} on each machine; leave trainer.devices and trainer.num_nodes out"
        )
    way, alone = cfg.task.get("on_divergence"), trainer.world_size == 1
    check("task.on_divergence", way, alone or way != "rollback", "stop with several processes")


def rows_stay(rows: int, batch_size: int, world_size: int) -> None:
    """Raise InputError unless a resumed run has as many rows as before, over all processes."""
    if rows != batch_size * world_size:
        share, rest = divmod(rows, world_size)
        raise InputError(
            f"data.batch_size={batch_size}: the run that is resumed has {rows} rows, which with"
            + (f" {world_size} processes" if world_size > 1 else " one process")
            + (" cannot be kept" if rest else f" is data.batch_size={share}")
        )
