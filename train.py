"""Train a character model: python train.py [KEY=VALUE ...], or --help."""

import logging
import math
import shlex
import sys
import warnings
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from charrnn import cli
from charrnn.errors import InputError

prepared: dict[str, tuple] = {}
"""What the guard made of the settings, for the job that comes after it; by run folder."""


def main() -> None:
    resume = [a.partition("=")[2] for a in sys.argv[1:] if a.startswith("resume=")]
    if resume and resume[-1] not in ("", "null"):
        sys.argv[1:] = [a for a in sys.argv[1:] if not a.startswith("resume=")]
        try:
            sys.argv[1:] = take_up(Path(resume[-1].strip("'\"")).expanduser()) + sys.argv[1:]
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
    cli.main("train", job, guard)


def take_up(path: Path) -> list[str]:
    """The arguments that go on with a run: its own settings, in its own folder."""
    from charrnn import checkpoint

    config = path / ".hydra" / "config.yaml"
    if config.is_file() and not (path / "checkpoints" / "last.ckpt").exists():
        # Ended before its first checkpoint: from the beginning, with the same settings.
        settings, file, run = OmegaConf.to_container(OmegaConf.load(config)), None, path
        cwd = OmegaConf.select(OmegaConf.load(config.with_name("hydra.yaml")), "hydra.runtime.cwd")
        settings["data"]["path"] = absolute(settings["data"]["path"], Path(cwd))
    else:
        file = checkpoint.find(path)
        settings = checkpoint.read(file)["charrnn"]["settings"]
        run = file.absolute().parent.parent
    settings |= {"resume": str(file.absolute()) if file else None, "init_from": None}
    ConfigStore.instance().store("resumed", OmegaConf.create(settings))
    folder = [f"hydra.run.dir='{run}'"] if run == path or file.parent.name == "checkpoints" else []
    return [
        "--config-name=resumed",
        "hydra/job_logging=stdout",
        "hydra.output_subdir=null",
        *folder,
    ]


def absolute(path, folder: Path):
    """A path, or a list of them, that means the same from any folder."""
    if path is None:
        return None
    return [absolute(p, folder) for p in path] if isinstance(path, list) else str(folder / path)


def guard(cfg: DictConfig, run: Path) -> None:
    """Make everything of a run but its folder, so that what is wrong shows before there is one."""
    run = run.absolute()
    taken = (run / ".hydra").exists() or (run / "checkpoints").exists()
    if taken and not any(a == f"hydra.run.dir='{run}'" for a in sys.argv):
        raise InputError(
            f"hydra.run.dir={run}: holds a run already; go on with it by resume={run},"
            " or name another folder"
        )
    prepared[str(run)] = prepare(cfg, run)


def prepare(cfg: DictConfig, run: Path) -> tuple:
    """The parts of a run: trainer, task, data, and the first window that is not yet behind it."""
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
    data = cli.build("data", cfg.data)
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
    description = {"settings": settings, "charset": charset.state_dict(), "corpus": corpus}
    optimizer = cli.build("optimizer", cfg.optimizer)
    scheduler = cli.build("scheduler", cfg.scheduler)
    try_out(cfg, optimizer, scheduler)
    task = cli.build("task", cfg.task, model, optimizer, scheduler, description)
    callbacks = [cli.build(f"callbacks.{k}", v) for k, v in cfg.callbacks.items() if v]
    if not cfg.trainer.get("enable_progress_bar", True):
        callbacks = [c for c in callbacks if type(c).__name__ != "Progress"]
    first = saved["charrnn"]["windows"] + 1 if saved else 0
    logger = cli.build("logger", cfg.logger, save_dir=str(run), purge_step=first)
    trainer = cli.build(
        "trainer", cfg.trainer, default_root_dir=str(run), logger=logger, callbacks=callbacks
    )
    return trainer, task, data, first


def try_out(cfg: DictConfig, optimizer, scheduler) -> None:
    """Make both for a parameter of no matter, so that a value out of range shows now."""
    import inspect

    import torch

    try:
        made = optimizer([torch.zeros(1, requires_grad=True)])
    except (ValueError, TypeError) as error:
        raise cli.named("optimizer", cfg.optimizer, error) from error
    total = {"total_steps": 1} if "total_steps" in inspect.signature(scheduler).parameters else {}
    try:
        scheduler(made, **total)
    except (ValueError, TypeError) as error:
        raise cli.named("scheduler", cfg.scheduler, error) from error


def job(cfg: DictConfig) -> None:
    """Train, and say how it went."""
    from charrnn.callbacks.metrics import drop_later

    run = Path(HydraConfig.get().runtime.output_dir)
    trainer, task, data, first = prepared.pop(str(run), None) or prepare(cfg, run)
    sizes = sum(p.numel() for p in task.model.parameters())
    backend = task.model.gru.choose_backend(trainer.strategy.root_device)
    print(
        f"{type(task.model).__name__}: {sizes:,} parameters, {len(data.corpus.charset)} characters,"
        f" backend {backend}; {len(data.stream.tokens):,} characters train,"
        f" {len(data.stream)} windows in a pass\nrun: {shown(run)}"
    )
    drop_later(run, first - 1)
    trainer.fit(task, data, ckpt_path=cfg.resume, weights_only=True)
    print(summary(task, run))


def summary(task, run: Path) -> str:
    """The losses, and the commands that go on from here."""
    bits = [f"{v:.4f} nats, {v / math.log(2):.4f} bpc (window {w})" for w, v in task.validations]
    lines = []
    if bits:
        best = min(range(len(bits)), key=lambda i: task.validations[i][1])
        lines += [f"best validation  {bits[best]}", f"last validation  {bits[-1]}"]
    script = Path(sys.argv[0])
    train, sample = (shlex.quote(str(script.with_name(n))) for n in ("train.py", "sample.py"))
    name = "best" if bits else "last"
    epochs = 2 * max(1, task.rounds)
    where = shlex.quote(shown(run))
    return "\n".join(
        [
            *lines,
            f"run              {shown(run)}",
            f"sample from it   python {sample} checkpoint={where}/checkpoints/{name}.ckpt",
            f"go on            python {train} resume={where} trainer.max_epochs={epochs}",
            f"curves           tensorboard --logdir {where}/tensorboard",
        ]
    )


def shown(path: Path) -> str:
    """A path as it is named from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
