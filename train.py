"""Train a character model: python train.py [KEY=VALUE ...], or --help."""

import logging
import math
import re
import shlex
import sys
import warnings
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from charrnn import cli
from charrnn.errors import InputError, check

FIXED = {
    "model": {"dropout", "backend"},
    "data": {"path", "valid_path", "test_path", "charset", "url", "sha256", "cache_dir"},
    "optimizer": None,
    "scheduler": None,
}
"""What a resumed run keeps, but for these keys; of optimizer and scheduler only the kind."""

PATHS = ("path", "valid_path", "test_path", "charset")
"""Of data."""

prepared: dict[str, tuple] = {}
"""What the guard made of the settings, for the job that comes after it; by run folder."""


def main() -> None:
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

    if (path / ".hydra").is_dir() and not (path / "checkpoints" / "last.ckpt").exists():
        # Ended before its first checkpoint: from the beginning, with the same settings.
        file, run, settings = None, path, started(path)
    else:
        file = checkpoint.find(path)
        settings = checkpoint.read(file)["charrnn"]["settings"] | {"init_from": None}
        in_place = path.is_dir() or file.parent.name == "checkpoints"
        run = file.parent.parent if in_place else None
    config = {
        **cli.escaped(settings | {"resume": str(file) if file else None}),
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
        for key in PATHS:
            settings["data"][key] = absolute(settings["data"].get(key), folder)
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
    texts = {key: {"sha256": c.sha256, "size": len(c.tokens)} for key, c in data.corpora.items()}
    corpus = texts.pop("data.path") | texts
    charset = data.corpus.charset
    if saved:
        refuse_texts(saved["charrnn"], corpus, charset.state_dict())
    model = cli.build("model", cfg.model, vocab_size=len(charset))
    model.boundary = charset.boundary
    if cfg.init_from:
        taken = checkpoint.initialize(model, charset, cfg.init_from)
        known = len(charset) - 1
        print(
            f"init_from: weights of {taken} of {known} characters taken over; {known - taken} are"
            " new, and start afresh"
        )
    for key in PATHS:
        settings["data"][key] = absolute(settings["data"].get(key), Path.cwd())
    settings["resume"] = None
    description = {"settings": settings, "charset": charset.state_dict(), "corpus": corpus}
    optimizer = cli.build("optimizer", cfg.optimizer)
    scheduler = cli.build("scheduler", cfg.scheduler)
    try_out(cfg, optimizer, scheduler)
    task = cli.build("task", cfg.task, model, optimizer, scheduler, description)
    if saved:
        task.rounds, task.validations = saved["charrnn"]["rounds"], saved["charrnn"]["validations"]
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


def refuse_texts(saved: dict, corpus: dict, charset: dict) -> None:
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
            lambda v: 0 < v <= (1 if isinstance(v, float) else windows),
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
    from charrnn.callbacks.metrics import drop_later

    run = Path(HydraConfig.get().runtime.output_dir)
    trainer, task, data, saved = prepared.pop(str(run), None) or prepare(cfg, run)
    sizes = sum(p.numel() for p in task.model.parameters())
    backend = task.model.gru.choose_backend(trainer.strategy.root_device)
    print(
        f"{type(task.model).__name__}: {sizes:,} parameters, {len(data.corpus.charset)} characters,"
        f" backend {backend}; {len(data.stream.tokens):,} characters train,"
        f" {len(data.stream)} windows in a pass\nrun: {shown(run)}"
    )
    for key, corpus in data.corpora.items():
        if corpus.unknown:
            share = f"{corpus.unknown:,} of {len(corpus.tokens):,} characters"
            print(f"{key}: {share} are outside the alphabet, and read as U+FFFD")
    if saved and is_finished(trainer, saved):
        print(f"nothing is left to do: {task.rounds} rounds are finished")
    else:
        drop_later(run, saved["charrnn"]["windows"] if saved else -1)
        trainer.fit(task, data, ckpt_path=cfg.resume or None, weights_only=True)
    print(summary(trainer, task, run))
    if data.test:
        print(tested(run, data.test, trainer.strategy.root_device))


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


def tested(run: Path, windows, device) -> str:
    """The loss of the best checkpoint on the text that is kept for that."""
    from charrnn import checkpoint, evaluation

    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    file = best if best.exists() else last
    nats = evaluation.mean_nats(checkpoint.load(file).model.to(device), windows)
    return f"test             {nats:.4f} nats, {nats / math.log(2):.4f} bpc ({file.name})"


def shown(path: Path) -> str:
    """A path as it is named from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
