"""The state of a CharTask in a checkpoint: saved from all ranks, and restored on resuming.

Lightning saves parameters, optimizer and its own loops; the rest is under the key "charrnn".
B rows of this rank, R rows of all ranks.
"""

import inspect

import torch

from charrnn import __version__, models
from charrnn.checkpoint.format import FORMAT
from charrnn.errors import InputError
from charrnn.models import contract
from charrnn.models.state import (
    describe,
    from_plain,
    join_rows,
    narrow_rows,
    same_structure,
    to_device,
    to_plain,
)
from charrnn.training.schedulers import restore_scheduler
from charrnn.training.validation import Validations


def save_state(task) -> dict:
    """Collect the state of a task, in plain containers and tensors.

    All ranks call this together; the carry is that of all R rows.
    """
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and task.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(task.device)
    carry, others = to_plain(task.carry), []
    if task.trainer.world_size > 1:
        parts = [None] * task.trainer.world_size
        on_cpu = to_device(carry, torch.device("cpu"))
        torch.distributed.all_gather_object(parts, (on_cpu, random))
        carry = join_rows([part for part, _ in parts], contract.batch_dim(task.model))
        random, *others = (state for _, state in parts)
    return {
        "format": FORMAT,
        "version": __version__,
        **(task.description or describe_run(task)),
        "carry": carry,
        "position": task.position,
        "random": random,
        "random_of_others": others,
        "scheduler": task.scheduler.state_dict(),
        "total_steps": task.total_steps(),
        "windows": task.global_step,
        "rounds": task.rounds,
        "round_windows": task.round_windows,
        **task.validations.state_dict(),
        "mean_loss": task.monitor.mean_loss,
        "rollbacks": task.rollbacks,
        "frozen": [name for name, p in task.named_parameters() if not p.requires_grad],
    }


def describe_run(task) -> dict:
    """Describe model, charset and text where no command did, as with Lightning's own Trainer.

    So :func:`charrnn.load` reads these checkpoints. The model's settings are the attributes with
    the names of its arguments, its own or its children's.
    """
    kind, corpus = type(task.model), task.trainer.datamodule.corpus
    settings = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    if kind.__module__.startswith(f"{models.__name__}."):
        settings["_target_"] = f"{models.__name__}.{kind.__qualname__}"
    for name in inspect.signature(kind).parameters:
        found = [getattr(owner, name, None) for owner in (task.model, *task.model.children())]
        found = [value for value in found if isinstance(value, int | float | str)]
        if found and name not in ("vocab_size", "backend"):
            settings[name] = found[0]
    return {
        "settings": {"model": settings},
        "charset": corpus.charset.state_dict(),
        "corpus": {"sha256": corpus.sha256, "size": len(corpus.tokens)},
    }


def restore_state(task, saved: dict) -> None:
    """Restore what :func:`save_state` collected; the task has a trainer and an initial carry.

    Raises:
        InputError: the carry is of another size than the model and the rows of all ranks.
    """
    rows, carry = task.trainer.datamodule.stream.batch_size, saved["carry"]
    expected = to_plain(contract.initial_state(task.model, rows * task.trainer.world_size))
    if not same_structure(carry, expected):
        raise InputError(
            f"resume: the carry is {describe(carry)} there and {describe(expected)} here;"
            " a run keeps its sizes and its rows, data.batch_size times the processes"
        )
    carry = narrow_rows(carry, task.global_rank * rows, rows, contract.batch_dim(task.model))
    task.carry = from_plain(carry, task.carry)
    task.trainer.datamodule.stream.load_state_dict(saved["position"])
    task.position = saved["position"]
    task.rounds, task.round_windows = saved["rounds"], saved["round_windows"]
    task.validations = Validations.from_state(saved)
    task.monitor.mean_loss = saved.get("mean_loss")
    if "frozen" in saved:  # of what a callback of finetuning has frozen or trained since
        for name, parameter in task.named_parameters():
            parameter.requires_grad_(name not in saved["frozen"])
    _restore_learning_rate(task, saved)
    states = [saved["random"], *saved.get("random_of_others", [])]
    if task.global_rank >= len(states):  # saved by fewer ranks
        seed_rank(task.global_rank)
        return
    random = states[task.global_rank]
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and task.device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"], task.device)


def seed_rank(rank: int) -> None:
    """Give every rank but rank zero random numbers of its own, from the common seed."""
    if rank:
        torch.manual_seed(torch.initial_seed() + rank)


def _restore_learning_rate(task, saved: dict) -> None:
    """Restore the scheduler, then apply optimizer settings that were changed on resuming."""
    optimizer = task.trainer.optimizers[0]
    restore_scheduler(task, optimizer, saved)
    # Empty where Lightning's own Trainer is used, without the settings of a command.
    before = saved["settings"].get("optimizer", {})
    now = task.description.get("settings", {}).get("optimizer", {})
    if task.is_rollback:
        _scale_learning_rate(optimizer, task.scheduler, now["lr"] / before["lr"])
    for key, value in now.items() if before else ():
        # A key that was not set before had torch's default.
        if before.get(key, ...) != value and not (key == "lr" and task.is_rollback):
            for group in optimizer.param_groups:
                if key in group:
                    group[key] = value
                if key == "lr" and "initial_lr" in group:
                    group["initial_lr"] = value
            if key == "lr" and hasattr(task.scheduler, "base_lrs"):
                task.scheduler.base_lrs = [value] * len(task.scheduler.base_lrs)


def _scale_learning_rate(optimizer: torch.optim.Optimizer, scheduler, factor: float) -> None:
    """Multiply the current learning rate, and the initial one that schedulers start from."""
    for group in optimizer.param_groups:
        for key in {"lr", "initial_lr"} & group.keys():
            group[key] *= factor
    for name in {"base_lrs", "_last_lr"} & vars(scheduler).keys():
        setattr(scheduler, name, [rate * factor for rate in vars(scheduler)[name]])
