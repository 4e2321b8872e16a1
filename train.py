"""Train a character model: python train.py [KEY=VALUE ...], or --help."""

import contextlib
import logging
import math
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from charrnn import cli
from charrnn.errors import Diverged, InputError, check, visible

FIXED = {
    "model": {"dropout", "backend"},
    "data": {"path", "url", "sha256", "cache_dir"},
    "optimizer": None,
    "scheduler": None,
}
"""What a resumed run keeps, but for these keys; of optimizer and scheduler only the kind."""

prepared: dict[str, tuple] = {}
"""What the guard made of the settings, for the job that comes after it; by run folder."""


def main() -> None:
    sys.stdout, sys.stderr = cli.Lenient(sys.stdout), cli.Lenient(sys.stderr)
    with cli.one_line_errors():
        given = [a for a in sys.argv[1:] if re.match(r"\+{0,2}resume=", a)]
        path = given[-1].partition("=")[2].strip("'\"") if given else ""
        if path not in ("", "null"):
            sys.argv[1:] = [a for a in sys.argv[1:] if a not in given]
            take_up(Path(path).expanduser().absolute())
            sys.argv.insert(1, "--config-name=resumed")
    cli.main("train", job, guard)


def take_up(path: Path) -> None:
    """Make the configuration "resumed": a run's own settings, and its own folder."""
    from charrnn import checkpoint

    if (path / ".hydra").is_dir() and not list((path / "checkpoints").glob("*.ckpt")):
        # Ended before its first checkpoint: from the beginning, with the same settings.
        file, run, settings = None, path, started(path)
    else:
        file = checkpoint.last(path) if path.is_dir() else checkpoint.find(path)
        ours = checkpoint.read(file)["charrnn"]
        if "carry" not in ours:
            raise InputError(f"resume={file}: holds a model alone; use init_from={file}")
        settings = ours["settings"] | {"init_from": None}
        in_place = path.is_dir() or file.parent.name == "checkpoints"
        run = file.parent.parent if in_place else None
    config = {
        **cli.escaped(settings | {"resume": str(file) if file else None}),
        "allow_targets": cli.train_yaml()[
            "allow_targets"
        ],  # not what the checkpoint would like to be allowed
        "defaults": ["_self_", {"override hydra/job_logging": "stdout"}],
        "hydra": {"callbacks": {"guard": {"_target_": "charrnn.cli.Guard"}}},
    }
    if run is not None:
        config["hydra"] |= {"run": {"dir": cli.escaped(str(run))}, "output_subdir": None}
    ConfigStore.instance().store("resumed", OmegaConf.create(config))


def started(run: Path) -> dict:
    """The settings with which a run was started. Raises InputError where they are not whole."""
    try:
        settings = OmegaConf.to_container(OmegaConf.load(run / ".hydra" / "config.yaml"))
        hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml")
        folder = Path(OmegaConf.select(hydra, "hydra.runtime.cwd"))
        settings["data"]["path"] = absolute(settings["data"]["path"], folder)
        settings["init_from"] = absolute(settings["init_from"], folder)
    except (OSError, TypeError, KeyError, yaml.YAMLError) as error:
        raise InputError(
            f"resume={run}: it ended before its settings were written; start it anew"
        ) from error
    return settings


def absolute(path, folder: Path):
    """A path, or a list of them, that means the same from any folder."""
    if path is None:
        return None
    if isinstance(path, list):
        return [absolute(p, folder) for p in path]
    return str(folder / Path(path).expanduser())


def guard(cfg: DictConfig, run: Path) -> None:
    """Make everything of a run but its folder, so that what is wrong shows before there is one."""
    prepared[str(run.absolute())] = prepare(cfg, run.absolute())


def prepare(cfg: DictConfig, run: Path) -> tuple:
    """The parts of a run: trainer, task, data, and the checkpoint that it goes on from, or None."""
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    cli.check_settings(settings)

    import torch

    from charrnn import checkpoint

    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's advice on what is done on purpose here.
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended")
    warnings.filterwarnings("ignore", message="The number of training batches")
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")

    torch.manual_seed(cfg.seed)
    saved = checkpoint.read(cfg.resume) if cfg.resume else None
    if saved:
        refuse_changes(saved["charrnn"]["settings"], settings)
    data = cli.build("data", cfg.data)
    check_trainer(cfg.trainer, data)
    corpus = {"sha256": data.corpus.sha256, "size": len(data.corpus.tokens)}
    if saved and saved["charrnn"]["corpus"] != corpus:
        before = saved["charrnn"]["corpus"]
        raise InputError(
            f"resume: the corpus has changed since (it was {before['size']} characters, SHA-256"
            f" {before['sha256'][:12]}...; it is {corpus['size']}, {corpus['sha256'][:12]}...);"
            " give the same text with data.path=FILE"
        )
    charset = data.corpus.charset
    model = cli.build("model", cfg.model, vocab_size=len(charset))
    if cfg.init_from:
        taken = checkpoint.initialize(model, charset, cfg.init_from)
        print(f"init_from: weights of {taken} of {len(charset) - 1} characters taken over")
    settings["data"]["path"] = absolute(settings["data"]["path"], Path.cwd())
    settings["resume"] = None
    description = {"settings": settings, "charset": charset.state_dict(), "corpus": corpus}
    optimizer = cli.build("optimizer", cfg.optimizer)
    scheduler = cli.build("scheduler", cfg.scheduler)
    try_out(cfg, optimizer, scheduler)
    task = cli.build("task", cfg.task, model, optimizer, scheduler, description)
    if saved:
        task.rounds, task.validations = saved["charrnn"]["rounds"], saved["charrnn"]["validations"]
        task.rollbacks = saved["charrnn"].get("rollbacks", 0)
    callbacks = [cli.build(f"callbacks.{k}", v) for k, v in cfg.callbacks.items() if v]
    if not cfg.trainer.get("enable_progress_bar", True):
        callbacks = [c for c in callbacks if type(c).__name__ != "Progress"]
    first = saved["charrnn"]["windows"] + 1 if saved else 0
    logger = cli.build("logger", cfg.logger, save_dir=str(run), purge_step=first)
    trainer = cli.build(
        "trainer", cfg.trainer, default_root_dir=str(run), logger=logger, callbacks=callbacks
    )
    return trainer, task, data, saved


def refuse_changes(before: dict, now: dict) -> None:
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


def check_trainer(trainer: DictConfig, data) -> None:
    """Raise InputError for what Lightning would refuse, or misunderstand, later."""
    whole = "a whole number, at least 1"

    def asked(key: str, ok, wanted: str, default: object = None) -> None:
        value = trainer.get(key, default)
        check(f"trainer.{key}", value, value is None or ok(value), wanted)

    for key in ("devices", "num_nodes", "accumulate_grad_batches"):
        asked(key, lambda v: v in (1, "1", [0]), "1: there is no training on several yet")
    for key in ("log_every_n_steps", "check_val_every_n_epoch"):
        asked(key, lambda v: v >= 1, whole)
    for key in ("max_epochs", "max_steps"):
        asked(key, lambda v: v == -1 or v >= 1, f"{whole}; -1 for no limit")
    asked("gradient_clip_val", lambda v: 0 <= v < math.inf, "at least 0")
    asked("limit_train_batches", lambda v: v > 0, "above 0: windows of a round, or 1.0 for a pass")
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


def is_finished(trainer, saved: dict) -> bool:
    """Whether a run that is taken up has nothing left to do."""
    ours = saved["charrnn"]
    by_rounds = 0 < (trainer.max_epochs or -1) <= ours["rounds"]
    return by_rounds or 0 < trainer.max_steps <= ours["windows"]


def try_out(cfg: DictConfig, optimizer, scheduler) -> None:
    """Make both for a parameter of no matter, so that a value out of range shows now."""
    import inspect

    import torch

    rate, decay = cfg.optimizer.get("lr"), cfg.optimizer.get("alpha")
    check("optimizer.lr", rate, rate is None or 0 < rate < math.inf, "above 0")
    check("optimizer.alpha", decay, decay is None or 0 <= decay < 1, "at least 0 and below 1")
    try:
        made = optimizer([torch.zeros(1, requires_grad=True)])
    except (ValueError, TypeError) as error:
        raise cli.named("optimizer", cfg.optimizer, error) from error
    total = {}
    if "total_steps" in inspect.signature(scheduler).parameters:
        limits = (cfg.trainer.get("max_epochs"), cfg.trainer.get("max_steps"))
        ends = any(v is not None and v > 0 for v in limits)
        check("trainer.max_epochs", limits[0], ends, "at least 1 with a rate that falls to an end")
        total = {"total_steps": 1}
    try:
        scheduler(made, **total)
    except (ValueError, TypeError) as error:
        raise cli.named("scheduler", cfg.scheduler, error) from error


def job(cfg: DictConfig) -> None:
    """Train, and say how it went."""
    run = Path(HydraConfig.get().runtime.output_dir)
    with alone(run):
        train(cfg, run)


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run's folder. Raises InputError where another process does.

    The system lets it go when the process ends, however it ends.
    """
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    if rank != "0":  # of several processes the first holds it
        yield
        return
    folder = os.open(run, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise InputError(f"{run}: another process trains there; wait for its end") from error
    except (ImportError, OSError):
        pass  # a system, or a file system, without locks
    try:
        yield
    finally:
        os.close(folder)


def train(cfg: DictConfig, run: Path) -> None:
    """One run, in a folder that is its own."""
    trainer, task, data, saved = prepared.pop(str(run), None) or prepare(cfg, run)
    sizes = sum(p.numel() for p in task.model.parameters())
    backend = task.model.gru.choose_backend(trainer.strategy.root_device)
    print(
        f"{type(task.model).__name__}: {sizes:,} parameters, {len(data.corpus.charset)} characters,"
        f" backend {backend}; {len(data.stream.tokens):,} characters train,"
        f" {len(data.stream)} windows in a pass\nrun: {shown(run)}"
    )
    go_back(cfg, run, saved)
    finished = saved and is_finished(trainer, saved)
    if finished:
        print(f"nothing is left to do: {task.rounds} rounds are finished")
    while not finished:
        try:
            trainer.fit(task, data, ckpt_path=cfg.resume or None, weights_only=True)
            finished = True
        except Diverged as error:
            trainer, task, data = roll_back(cfg, run, task, error)
    print(summary(trainer, task, run))


def go_back(cfg: DictConfig, run: Path, saved: dict | None) -> None:
    """Leave of a run's folder what stands at a checkpoint or before it."""
    from charrnn.callbacks import checkpoint, metrics

    if saved:
        checkpoint.go_back(run / "checkpoints", Path(cfg.resume))
    metrics.drop_later(run, saved["charrnn"]["windows"] if saved else -1)


def roll_back(cfg: DictConfig, run: Path, task, error: Diverged) -> tuple:
    """The trainer, task and data with which a run that diverged goes on from before that.

    All is as the newest checkpoint that was still good has it, but for the learning rate. Raises
    the error where there may be no rollback, or there is nothing to roll back to.
    """
    from charrnn import checkpoint
    from charrnn.callbacks.metrics import add_text

    if task.on_divergence == "stop":
        raise error
    if task.rollbacks == task.max_rollbacks:
        raise Diverged(f"{error.what}, after {task.rollbacks} rollbacks", error.good) from error
    try:
        file, windows = checkpoint.newest(run, error.good)
    except InputError:
        raise error from None
    cfg.resume = str(file)
    cfg.init_from = None
    cfg.optimizer.lr *= task.rollback_factor
    number = task.rollbacks + 1
    trainer, task, data, saved = prepare(cfg, run)
    go_back(cfg, run, saved)
    task.rollbacks, task.taken_back = number, True
    line = (
        f"{error.what}: rollback {number} of {task.max_rollbacks}, to window {windows}, with"
        f" optimizer.lr={cfg.optimizer.lr:.3g}"
    )
    print(line)
    add_text(trainer, "rollback", line, windows)
    return trainer, task, data


def summary(trainer, task, run: Path) -> str:
    """The losses, and the commands that go on from here."""
    bits = [f"{v:.4f} nats, {v / math.log(2):.4f} bpc (window {w})" for w, v in task.validations]
    lines = []
    if bits:
        best = min(range(len(bits)), key=lambda i: task.validations[i][1])
        lines += [f"best validation  {bits[best]}", f"last validation  {bits[-1]}"]
    script = Path(sys.argv[0])
    train, sample = (shlex.quote(str(script.with_name(n))) for n in ("train.py", "sample.py"))
    name = "best" if len(bits) > 1 else "last"  # the untrained model alone is no best
    more = f"trainer.max_epochs={2 * max(1, task.rounds)}"
    if trainer.max_steps > 0:
        more = f"trainer.max_steps={2 * trainer.max_steps}"
    where = shlex.quote(shown(run))
    return "\n".join(
        [
            *lines,
            f"run              {shown(run)}",
            f"sample from it   python {sample} checkpoint={where}/checkpoints/{name}.ckpt",
            f"go on            python {train} resume={where} {more}",
            f"curves           tensorboard --logdir {where}/tensorboard",
        ]
    )


def shown(path: Path) -> str:
    """A path as it is named from here, fit for a terminal."""
    return visible(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


if __name__ == "__main__":
    main()
