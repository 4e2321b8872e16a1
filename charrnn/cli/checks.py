"""Checks of a run's settings against each other, its text and the checkpoint it goes on from.

They run before the run has a folder. Settings are OmegaConf's.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Iterator, Mapping

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from charrnn.cli.errors import name_key
from charrnn.cli.keys import nearest
from charrnn.cli.overrides import last_value
from charrnn.data.charset import Charset
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
"""What a resumed run keeps, except these keys; of optimizer and scheduler only the kind."""


def no_changes(before: dict, now: dict) -> None:
    """Raise InputError for a setting that cannot change in a resumed run."""
    pairs = [("seed", before["seed"], now["seed"]), ("init_from", None, now["init_from"])]
    windows = [settings["trainer"].get("overfit_batches") or 0 for settings in (before, now)]
    pairs.append(("trainer.overfit_batches", *windows))
    for group, free in FIXED.items():
        keys = {"_target_"} if free is None else {*before[group], *now[group]} - free
        pairs += [(f"{group}.{k}", before[group].get(k), now[group].get(k)) for k in sorted(keys)]
    for key, old, new in pairs:
        if old != new:
            raise InputError(
                f"{key}={new}: cannot be changed in a run that is resumed (it is {old} there);"
                " start a new one, with init_from=RUN for its weights"
            )


def same_optimizer_state(saved: dict, optimizer, now: Mapping) -> None:
    """Raise InputError for settings of an optimizer that need a state which was not kept.

    Args:
        saved: the checkpoint's dictionary.
        optimizer: function from parameters to an optimizer with the settings ``now``.
    """
    states = [s for part in saved["optimizer_states"] for s in part["state"].values()]
    before = saved["charrnn"]["settings"]["optimizer"]
    changed = [f"optimizer.{k}={v}" for k, v in now.items() if before.get(k, ...) != v]
    if not (states and changed):
        return
    dummy = torch.zeros(1, requires_grad=True)
    dummy.grad = torch.zeros(1)
    made = optimizer([dummy])
    made.step()
    if lacking := made.state[dummy].keys() - states[0].keys():
        raise InputError(
            f"{' '.join(changed)}: needs {', '.join(sorted(lacking))}, which the run that is"
            " resumed has not; start a new one, with init_from=RUN for its weights"
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
    if Charset(**saved["charset"]) != Charset(**charset):
        raise InputError("resume: the alphabet has changed since; give the same with data.charset=")


SET_ELSEWHERE = {
    "logger": "logger=",
    "callbacks": "callbacks.NAME._target_=",
    "default_root_dir": "hydra.run.dir=",
}
"""Keys of the trainer that have settings of their own."""


WITHOUT_EFFECT = {
    "limit_predict_batches": "nothing predicts in a run",
    "reload_dataloaders_every_n_epochs": "the stream of windows goes on from round to round",
    "sync_batchnorm": "charrnn's models have no batch normalization",
    "enable_autolog_hparams": "logger= logs the settings, and callbacks.metrics chooses them",
    "model_registry": "checkpoints stay in the run's folder",
}
"""Keys of the trainer that nothing here would act on, and why."""


def key_is(trainer, key: str, ok, expected: str) -> None:
    """Raise InputError unless a key of the trainer is not set, or ok."""
    value = trainer.get(key)
    check(f"trainer.{key}", value, value is None or ok(value), expected)


def trainer_keys(trainer) -> None:
    """Raise InputError for values that Lightning would refuse, or misread, later."""
    whole = "a whole number, at least 1"
    require = functools.partial(key_is, trainer)
    for key, instead in SET_ELSEWHERE.items():
        if trainer.get(key) is not None:
            raise InputError(f"trainer.{key}: is set by {instead}; leave it out")
    defaults = inspect.signature(Trainer).parameters
    for key, reason in WITHOUT_EFFECT.items():
        if trainer.get(key) not in (None, defaults[key].default):
            raise InputError(f"trainer.{key}: {reason}; leave it out")
    require("accumulate_grad_batches", lambda v: v == 1, "1: every window is a step")
    require("use_distributed_sampler", lambda v: not v, "false: each process reads its own rows")
    require("precision", lambda v: v != "16-true", "16-mixed: weights in float16 soon overflow")
    require("barebones", lambda v: not v, "false; charrnn benchmarks loop measures the bare loop")
    require(
        "overfit_batches",
        lambda v: v == 0 or (type(v) is int and v > 0),
        "a whole number of windows, or 0",
    )
    require("num_nodes", lambda v: isinstance(v, int) and v >= 1, whole)
    require(
        "strategy",
        lambda v: (
            "DDPStrategy" in v.get("_target_", "")
            if isinstance(v, Mapping)
            else (v in ("auto", "ddp", "ddp_find_unused_parameters_true"))
        ),
        "auto, ddp, or a DDPStrategy as _target_",
    )
    if isinstance(trainer.get("strategy"), Mapping):
        strategy_keys(trainer.strategy)
    for key in ("log_every_n_steps", "check_val_every_n_epoch"):
        require(key, lambda v: v >= 1, whole)
    for key in ("max_epochs", "max_steps"):
        require(key, lambda v: v == -1 or v >= 1, f"{whole}; -1 for no limit")
    require("gradient_clip_val", lambda v: 0 <= v < math.inf, "at least 0")
    require(
        "limit_train_batches", lambda v: v > 0, "above 0: windows of a round, or 1.0 for a pass"
    )
    whole_or_none = "1.0, or 0, which leaves the test out"
    require("limit_test_batches", lambda v: v == 0 or (type(v) is float and v == 1), whole_or_none)


OF_STRATEGY = {
    "accelerator": "trainer.accelerator=",
    "parallel_devices": "trainer.devices=",
    "precision_plugin": "trainer.precision=",
    "checkpoint_io": "callbacks.checkpoint",
    "cluster_environment": "torchrun or srun",
    "start_method": "trainer.devices=",
}
"""Arguments of a strategy that have settings of their own, which would take their place."""


def strategy_keys(strategy: Mapping) -> None:
    """Raise InputError for an argument of a DDPStrategy that nothing reads."""
    own, wrapped = (inspect.signature(c).parameters for c in (DDPStrategy, DistributedDataParallel))
    for key in strategy:
        name = f"trainer.strategy.{key}"
        if key in OF_STRATEGY:
            raise InputError(f"{name}: is set by {OF_STRATEGY[key]}; leave it out")
        if key != "_target_" and key not in {*own, *wrapped} - {"kwargs", "module", "device_ids"}:
            raise InputError(f"{name}: nothing reads this key{nearest(name, list(own))}")
    backend = strategy.get("process_group_backend")
    known = torch.distributed.Backend.backend_list
    ok = backend is None or backend in known
    check("trainer.strategy.process_group_backend", backend, ok, " or ".join(known[1:]))


def lengths(trainer, data) -> None:
    """Raise InputError for more windows than a round or the validation text has."""
    require = functools.partial(key_is, trainer)
    limit = trainer.get("limit_train_batches")
    windows = data.round_length(1.0 if limit is None else limit)
    if trainer.get("check_val_every_n_epoch", 1) is not None:
        require(
            "val_check_interval",
            lambda v: not isinstance(v, str) and 0 < v <= (1 if isinstance(v, float) else windows),
            f"at most the {windows} windows of a round, or a share of it above 0, at most 1.0",
        )
    shortest = 1 / max(1, len(data.validation))
    require(
        "limit_val_batches",
        lambda v: v >= 0 and (isinstance(v, int) or v == 0 or v >= shortest),
        f"a whole number of windows, or a share of them, at least {shortest:.2g}",
    )


REFUSALS = (
    ValueError, TypeError, KeyError, RuntimeError, AssertionError, NotImplementedError,
)  # fmt: skip
"""What torch's optimizers and schedulers raise about their arguments, some at the first step."""


def optimization(cfg, optimizer, scheduler, device: torch.device) -> None:
    """Build both for a dummy parameter, and on a CPU make a step, so that wrong values show now."""
    rate, decay = cfg.optimizer.get("lr"), cfg.optimizer.get("alpha")
    check("optimizer.lr", rate, rate is None or 0 < rate < math.inf, "above 0")
    check("optimizer.alpha", decay, decay is None or 0 <= decay < 1, "at least 0 and below 1")
    dummy = torch.zeros(1, requires_grad=True)
    with refusals("optimizer", cfg.optimizer):
        made = optimizer([dummy])
    closure = inspect.signature(type(made).step).parameters.get("closure")
    check(
        "optimizer._target_",
        cfg.optimizer._target_,
        closure is None or closure.default is not closure.empty,
        "one that reads a window once for a step; its state goes on with each reading",
    )
    total = {}
    if "total_steps" in inspect.signature(scheduler).parameters:
        limits = (cfg.trainer.get("max_epochs"), cfg.trainer.get("max_steps"))
        ends = any(v is not None and v > 0 for v in limits)
        check("trainer.max_epochs", limits[0], ends, "at least 1 with a rate that falls to an end")
        total = {"total_steps": 1}
    with refusals("scheduler", cfg.scheduler):
        scheduler(made, **total)
    if device.type == "cpu":
        dummy.grad = torch.zeros(1)
        with refusals("optimizer", cfg.optimizer):
            made.step()


@contextlib.contextmanager
def refusals(key: str, node: Mapping) -> Iterator[None]:
    """Raise what torch refuses as InputError with its key; a bug of another class stays one."""
    try:
        yield
    except REFUSALS as error:
        of_torch = node["_target_"].startswith("torch.")
        if of_torch and not isinstance(error, ValueError | TypeError):
            text = str(error.args[0] if error.args else "is a base class").partition(".\n")[0]
            error = ValueError(text)
        raise name_key(key, node, error) from error


def process_count(cfg, trainer) -> None:
    """Raise InputError where the processes are not as many as the trainer's settings say."""
    ranks = distributed.current_ranks()
    if not ranks:
        expected = "1, unless torchrun or srun starts a process for each device"
        check("trainer.num_nodes", trainer.num_nodes, trainer.num_nodes == 1, expected)
    elif (trainer.num_devices, trainer.num_nodes * ranks.local_world_size) != (
        ranks.local_world_size, ranks.world_size
    ):  # fmt: skip
        raise InputError(
            f"trainer.devices={cfg.trainer.devices}: {ranks.world_size} processes were started,"
            f" {ranks.local_world_size} on each machine; leave out trainer.devices and"
            " trainer.num_nodes"
        )
    way, single = cfg.task.get("on_divergence"), trainer.world_size == 1
    check("task.on_divergence", way, single or way != "rollback", "stop with several processes")


def rows_stay(rows: int, batch_size: int, world_size: int) -> None:
    """Raise InputError unless a resumed run has as many rows as before, over all processes."""
    if rows != batch_size * world_size:
        share, rest = divmod(rows, world_size)
        raise InputError(
            f"data.batch_size={batch_size}: the run that is resumed has {rows} rows, which with"
            + (f" {world_size} processes" if world_size > 1 else " one process")
            + (" cannot be kept" if rest else f" is data.batch_size={share}")
        )


def check_pairs(config: DictConfig, overrides) -> None:
    """Raise InputError where a hidden size is given that another key chooses."""
    given = last_value(list(overrides), "model.hidden_size")
    budget = OmegaConf.select(config, "model.parameters")
    if given not in (None, "", "null") and budget:
        raise InputError(
            f"model.parameters={budget}: chooses the hidden size; leave out"
            f" model.hidden_size={given}, or give model.parameters=null"
        )
