"""From a configuration to the parts of a run: ``prepare(config, job) -> Run``."""

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import Trainer
from torch import nn

from charrnn import checkpoint
from charrnn.callbacks import StochasticWeightAveraging
from charrnn.cli import checks, memory
from charrnn.cli.arguments import Program, absolute
from charrnn.cli.instantiate import instantiate
from charrnn.cli.overrides import CORPUS_PATHS, escape
from charrnn.cli.schema import check_settings
from charrnn.cli.trainer import build_trainer, set_precision
from charrnn.data.datamodule import CharDataModule
from charrnn.data.waiting import say_if_slow
from charrnn.errors import InputError, check
from charrnn.models import contract
from charrnn.models.budget import largest_hidden_size, takes
from charrnn.models.state import count_rows
from charrnn.models.verify import verify_model
from charrnn.runs import Trial
from charrnn.training import distributed
from charrnn.training.advice import quiet_lightning
from charrnn.training.lightning_internals import limit_steps
from charrnn.training.task import CharTask
from charrnn.training.validation import Validations


@dataclass(frozen=True)
class Job:
    """What a run is told besides its configuration."""

    folder: Path
    overrides: tuple[str, ...] = ()
    """As they were typed."""
    program: Program = field(default_factory=Program)
    allow_targets: tuple[str, ...] = ()
    """``allow_targets=...`` as it was given, for printed commands."""
    in_sweep: bool = False
    fixed: tuple[str, ...] = ()
    """Keys that have the same value in all jobs of the sweep."""
    trial: Trial | None = None
    """Of a search."""
    cwd: Path = field(default_factory=Path.cwd)
    """Where the user is, who gave relative paths; ``hydra.job.chdir=true`` changes directories."""


@dataclass(frozen=True)
class Run:
    """A run, ready to train."""

    config: DictConfig
    job: Job
    trainer: Trainer
    task: CharTask
    data: CharDataModule
    resumed_from: dict | None
    """The checkpoint's dictionary, for a run that goes on."""


def prepare(config: DictConfig, job: Job) -> Run:
    """Check a configuration and build everything of a run. Nothing is written.

    Raises InputError, naming the key, for what is wrong.
    """
    if ranks := distributed.current_ranks():
        config = with_devices_of(config, ranks)
    if job.cwd != Path.cwd():
        config = with_absolute_paths(config, job.cwd)
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    check_settings(settings)
    quiet_lightning()
    torch.manual_seed(config.seed)
    precision = config.get("matmul_precision", "highest")
    ok = precision in ("highest", "high", "medium")
    check("matmul_precision", precision, ok, "highest, high or medium")
    torch.set_float32_matmul_precision(precision)
    saved = checkpoint.read(config.resume) if config.resume else None
    if saved and not config.model.get("parameters"):
        checks.no_changes(saved["charrnn"]["settings"], settings)
    checks.trainer_keys(config.trainer)
    optimizer = instantiate("optimizer", config.optimizer)
    scheduler = instantiate("scheduler", config.scheduler)
    trainer = build_trainer(config, job)
    checks.optimization(config, optimizer, scheduler, trainer.strategy.root_device)
    if saved and trainer.strategy.root_device.type == "cpu":  # where optimization made a step too
        checks.same_optimizer_state(saved, optimizer, settings["optimizer"])
    checks.process_count(config, trainer)
    check_ranges(config, optimizer, scheduler)
    with say_if_slow("reading the text"):
        data = instantiate("data", config.data, **given_charset(config.data))
    texts = {key: {"sha256": c.sha256, "size": len(c.tokens)} for key, c in data.corpora.items()}
    corpus = texts.pop("data.path") | texts
    charset = data.corpus.charset
    if saved:
        checks.same_texts(saved["charrnn"], corpus, charset.state_dict())
    settings["model"] = with_hidden_size(settings["model"], len(charset))
    if saved and config.model.get("parameters"):
        checks.no_changes(saved["charrnn"]["settings"], settings)
    build = functools.partial(build_model, settings["model"])
    if distributed.is_rank_zero():
        warn_of_shortage(config, build, len(charset), trainer.strategy.root_device)
    model = build(len(charset))
    model.boundary = charset.boundary
    if config.trainer.get("precision") == "auto":
        settings["trainer"]["precision"] = set_precision(trainer, model, data, saved)
    trainer.precision_plugin.convert_module(model)  # to the type of the weights that it gets
    if config.init_from:
        taken = checkpoint.initialize_model(model, charset, config.init_from, build)
        known = len(charset) - 1
        print(
            f"init_from: weights of {taken} of {known} characters copied; {known - taken} are"
            " new, and keep their initial weights"
        )
    for key in CORPUS_PATHS:
        settings["data"][key] = absolute(settings["data"].get(key), job.cwd)
    settings["resume"] = None
    description = {"settings": settings, "charset": charset.state_dict(), "corpus": corpus}
    task = instantiate("task", config.task, model, optimizer, scheduler, description)
    if saved:
        ours = saved["charrnn"]
        task.rounds, task.rollbacks = ours["rounds"], ours.get("rollbacks", 0)
        task.validations = Validations.from_state(ours)
    for callback in trainer.callbacks:
        for name in getattr(callback, "required_methods", ()):
            contract.required(model, name)
        if isinstance(callback, StochasticWeightAveraging):
            callback.verify(trainer, model)
    if trainer.overfit_batches:
        data.overfit(trainer.overfit_batches, trainer.world_size)
    data.shard(trainer.global_rank, trainer.world_size)
    checks.lengths(config.trainer, data)
    if saved:
        rows = count_rows(saved["charrnn"]["carry"], contract.batch_dim(model))
        checks.rows_stay(rows, config.data.batch_size, trainer.world_size)
    if task.max_characters:
        limit_characters(trainer, task, data)
    return Run(config, job, trainer, task, data, saved)


def check_ranges(config: DictConfig, optimizer, scheduler) -> None:
    """Raise InputError for a value out of range of the task, the rows or one of charrnn's models.

    Before the text is read, which can take long.
    """
    instantiate("task", config.task, nn.Identity(), optimizer, scheduler, {})
    for key in ("batch_size", "seq_len"):
        value = config.data.get(key, 1)
        ok = 1 <= value < 2**48  # so that no position in the text is too large for torch
        check(f"data.{key}", value, ok, "a whole number, at least 1, below 2**48")
    if config.model._target_.startswith("charrnn."):
        model = OmegaConf.to_container(config.model, resolve=True)
        model.pop("parameters", None)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            instantiate("model", OmegaConf.create(escape(model)), vocab_size=2)


def warn_of_shortage(config: DictConfig, build, vocab_size: int, device: torch.device) -> None:
    """Print a line where a model of charrnn is larger than the free memory, before it is made."""
    if not config.model._target_.startswith("charrnn."):
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = build(vocab_size)
    optimizer = config.optimizer._target_.rpartition(".")[2]
    is_native = config.model.get("backend") in ("auto", "native")
    data = config.data
    length, rows = data.get("seq_len", 100), data.get("batch_size", 16)
    needed = memory.needed_bytes(model, length, rows, optimizer, is_native)
    if line := memory.shortage(needed, memory.free_bytes(device)):
        print(line)


def with_hidden_size(settings: dict, vocab_size: int) -> dict:
    """The settings of a model, with a hidden size in place of ``parameters``, which is printed."""
    budget = settings.get("parameters")
    kind = checkpoint.get_target("model._target_", settings["_target_"])
    settings = settings | {"parameters": None} if takes(kind, "parameters") else dict(settings)
    if not takes(kind, "parameters"):
        settings.pop("parameters", None)
    if not budget:
        return settings
    chosen = ("_target_", "hidden_size", "parameters")
    others = {k: v for k, v in settings.items() if k not in chosen}
    if "backend" in others:
        others["backend"] = "reference"  # nothing is compiled to count parameters
    try:
        size = largest_hidden_size(kind, budget, vocab_size, **others)
    except InputError as error:
        raise InputError(f"model.{error}") from error
    print(f"model.parameters={budget:,}: model.hidden_size={size}")
    return settings | {"hidden_size": size}


def build_model(settings: dict, vocab_size: int) -> nn.Module:
    """The model of settings; of a class from elsewhere, it is verified."""
    model = instantiate("model", OmegaConf.create(escape(settings)), vocab_size=vocab_size)
    from_elsewhere = not checkpoint.is_below(type(model).__module__, ["charrnn"])
    if from_elsewhere and torch.get_default_device().type != "meta":
        verify_model(model, vocab_size)
    return model


def with_devices_of(config: DictConfig, ranks: distributed.Ranks) -> DictConfig:
    """The configuration with as many devices and nodes as processes were started."""
    config = config.copy()
    machines = ranks.world_size // ranks.local_world_size
    with open_dict(config):
        for key, number in (("devices", ranks.local_world_size), ("num_nodes", machines)):
            if config.trainer.get(key, 1) in (1, "1", None):
                config.trainer[key] = number
    return config


def with_absolute_paths(config: DictConfig, cwd: Path) -> DictConfig:
    """The configuration with the user's paths absolute, from the folder that they are relative to.

    In the process of a job that Hydra has moved to its own folder.
    """
    config = config.copy()
    with open_dict(config):
        for key in (*(f"data.{name}" for name in (*CORPUS_PATHS, "cache_dir")), "init_from"):
            if value := OmegaConf.select(config, key):
                plain = OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
                OmegaConf.update(config, key, escape(absolute(plain, cwd)))
    return config


def given_charset(data: DictConfig) -> dict:
    """The alphabet of a checkpoint that ``data.charset`` names, as an argument of the datamodule;
    a text file is left to that."""
    if not (data.get("charset") and checkpoint.is_checkpoint(data.charset)):
        return {}
    reading = {
        "unit": data.get("unit") or "char",
        "normalize": data.get("normalize"),
        "lowercase": bool(data.get("lowercase")),
        "documents": bool(data.get("document")),
        "newlines": "keep" if data.get("unit") == "byte" else data.get("newlines", "universal"),
    }
    return {"charset": checkpoint.read_charset(data.charset, reading)}


def limit_characters(trainer: Trainer, task: CharTask, data: CharDataModule) -> None:
    """End the run with the window that reaches ``task.max_characters``."""
    size = data.stream.batch_size * data.stream.seq_len * trainer.world_size
    windows = math.ceil(task.max_characters / size)
    if (trainer.max_epochs or 0) > 0:
        rounds = trainer.max_epochs * data.round_length(trainer.limit_train_batches)
        check(
            "task.max_characters",
            task.max_characters,
            windows <= rounds,
            f"at most {rounds * size}, where trainer.max_epochs={trainer.max_epochs} ends the run;"
            " or give trainer.max_epochs=-1",
        )
    limit_steps(trainer, windows)
