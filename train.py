"""Train a character model: python train.py [KEY=VALUE ...], or --help."""

import argparse
import contextlib
import functools
import logging
import math
import os
import re
import shlex
import sys
import warnings
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from charrnn.cli import app as cli
from charrnn.cli import errors as messages
from charrnn.cli.schema import check_call, check_settings, check_type, nearest, train_yaml
from charrnn.errors import Diverged, InputError, check
from charrnn.runs import lock, provenance, records, sweep
from charrnn.training import distributed

PATHS = ("path", "valid_path", "test_path", "charset")
"""Of data."""

prepared: dict[str, tuple] = {}
"""What the guard made of the settings, for the job that comes after it; by run folder."""


others = None
"""Where the processes of a run that were started together meet; None where this one is alone."""


def main() -> None:
    modes = [a.partition("=")[2] for a in sys.argv[1:] if a.startswith("mode=")]
    sys.argv[1:] = [a for a in sys.argv[1:] if not a.startswith("mode=")]
    with messages.one_line_errors():
        mode = modes[-1] if modes else "train"
        check("mode", mode, mode in ("train", "evaluate"), "train or evaluate")
        if mode == "evaluate" and {"-m", "--multirun"} & set(sys.argv):
            raise InputError("-m: mode=evaluate is no sweep; several at once are checkpoint=[A,B]")
    if mode == "evaluate":
        cli.main("evaluate", evaluate)
        return
    messages.be_lenient()
    requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    folders = [a.partition("=")[2] for a in sys.argv[1:] if a.startswith("hydra.run.dir=")]
    if requeued and folders and (Path(folders[-1]) / ".hydra").is_dir():
        allowed = [a for a in sys.argv[1:] if a.startswith("allow_targets=")]
        sys.argv[1:] = [f"resume={folders[-1]}", *allowed]
    if distributed.current_ranks():
        as_one_of_several()
    else:
        start()


def evaluate(cfg: DictConfig) -> None:
    """Report the figures of a checkpoint. Nothing is written but the file that was asked for."""
    settings = OmegaConf.to_container(cfg, resolve=True)
    asked, path = settings.pop("evaluate"), settings.pop("checkpoint")
    data = {key: value for key, value in settings.pop("data").items() if value is not None}
    check_type("checkpoint", path, str | list[str])
    for key in settings:
        known = ["checkpoint", "data", *(f"evaluate.{name}" for name in asked)]
        raise InputError(f"{key}: nothing reads this key{nearest(key, known)}")

    from charrnn.data.datamodule import CharDataModule
    from charrnn.evaluation import report as figures
    from charrnn.runs.members import find_checkpoints

    check_type("evaluate.output", output := asked.pop("output"), str | None)
    check_call(figures.report, asked, "evaluate.")
    check_call(CharDataModule, data, "data.")
    if output is not None and not Path(output).expanduser().parent.is_dir():
        raise InputError(f"evaluate.output={output}: there is no such folder; make it first")
    files = find_checkpoints(cli.newest_run() if path == "latest" else path)
    result = figures.report(files, data, **asked)
    print(figures.table(result))
    if output is not None:
        figures.write(result, Path(output).expanduser())


def as_one_of_several() -> None:
    """The first process makes the run's folder, or says why not; the others follow it."""
    global others
    first = not distributed.current_ranks().rank
    if not first:
        distributed.mute_stdout()
    with messages.one_line_errors():
        others = distributed.rendezvous_store()
    if first:
        try:
            start()
        finally:  # the others wait, unless there is a run; see job
            others.compare_set("run", "", "none")
        return
    if (run := others.get("run").decode()) == "none":
        sys.exit(2)
    sys.argv += [f"hydra.run.dir={cli.quoted(run)}", "hydra.output_subdir=null"]
    start()


def start() -> None:
    with messages.one_line_errors():
        given = [a for a in sys.argv[1:] if re.match(r"\+{0,2}resume=", a)]
        path = given[-1].partition("=")[2].strip("'\"") if given else ""
        if path not in ("", "null"):
            sys.argv[1:] = [a for a in sys.argv[1:] if a not in given]
            take_up(Path(path).expanduser().absolute())
            sys.argv.insert(1, "--config-name=resumed")
        repeat()
    cli.main("train", job, guard)


def take_up(path: Path) -> None:
    """Make the configuration "resumed": a run's own settings, and its own folder."""
    from charrnn import checkpoint

    if (path / ".hydra").is_dir() and not list((path / "checkpoints").glob("*.ckpt")):
        # Ended before its first checkpoint: from the beginning, with the same settings.
        file, run, settings = None, path, started(path)
    else:
        file = (
            checkpoint.find_resumable(path) if path.is_dir() else checkpoint.find_checkpoint(path)
        )
        ours = checkpoint.read(file)["charrnn"]
        if "carry" not in ours:
            raise InputError(f"resume={file}: holds a model alone; use init_from={file}")
        settings = ours["settings"] | {"init_from": None}
        in_place = path.is_dir() or file.parent.name == "checkpoints"
        run = file.parent.parent if in_place else None
    hydra = {}
    if run is not None:
        hydra = {"run": {"dir": cli.escaped(str(run))}, "output_subdir": None}
    store("resumed", settings | {"resume": str(file) if file else None}, hydra)


def repeat() -> None:
    """With --config-path RUN/.hydra, make the configuration "repeated": a run's settings anew."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("-cn", "--config-name")
    known, rest = parser.parse_known_args(sys.argv[1:])
    if known.config_path:
        folder = Path(known.config_path).expanduser().absolute()
        store("repeated", started(folder.parent), {})
        sys.argv[1:] = ["--config-name=repeated", *rest]


def store(name: str, settings: dict, hydra: dict) -> None:
    """Make settings a configuration, which has what train.yaml says of Hydra."""
    ours = train_yaml()
    config = {
        **cli.escaped(settings),
        "allow_targets": ours["allow_targets"],  # not what those settings would like to be allowed
        "defaults": ["_self_", {"override hydra/job_logging": "stdout"}],
        "hydra": {k: ours["hydra"][k] for k in ("callbacks", "sweep")} | hydra,
    }
    ConfigStore.instance().store(name, OmegaConf.create(config))


def started(run: Path) -> dict:
    """The settings with which a run was started. Raises InputError where they are not whole."""
    from charrnn import checkpoint

    try:
        settings = OmegaConf.to_container(OmegaConf.load(run / ".hydra" / "config.yaml"))
        settings = checkpoint.update_targets(settings)
        hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml")
        folder = Path(OmegaConf.select(hydra, "hydra.runtime.cwd"))
        for key in PATHS:
            settings["data"][key] = absolute(settings["data"].get(key), folder)
        settings["init_from"] = absolute(settings["init_from"], folder)
    except (OSError, TypeError, KeyError, yaml.YAMLError) as error:
        raise InputError(
            f"{run}: no settings of a run there, or it ended before they were written"
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
    if here := distributed.current_ranks():
        with open_dict(cfg):  # whoever started them says how many they are
            machines = here.world_size // here.local_world_size
            for key, number in (("devices", here.local_world_size), ("num_nodes", machines)):
                if cfg.trainer.get(key, 1) in (1, "1", None):
                    cfg.trainer[key] = number
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    check_settings(settings)

    import torch

    from charrnn import checkpoint
    from charrnn.cli import checks

    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's advice on what is done on purpose here.
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended")
    warnings.filterwarnings("ignore", message="The number of training batches")
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")

    torch.manual_seed(cfg.seed)
    saved = checkpoint.read(cfg.resume) if cfg.resume else None
    if saved and not cfg.model.get("parameters"):
        checks.no_changes(saved["charrnn"]["settings"], settings)
    given = {}
    if cfg.data.get("charset") and checkpoint.is_checkpoint(cfg.data.charset):
        reading = {key: cfg.data.get(key) for key in ("unit", "normalize", "lowercase")}
        reading |= {"unit": reading["unit"] or "char", "lowercase": bool(reading["lowercase"])}
        reading["documents"] = bool(cfg.data.get("document"))
        given["charset"] = checkpoint.read_charset(cfg.data.charset, reading)
    data = cli.build("data", cfg.data, **given)
    checks.trainer_keys(cfg.trainer)
    texts = {key: {"sha256": c.sha256, "size": len(c.tokens)} for key, c in data.corpora.items()}
    corpus = texts.pop("data.path") | texts
    charset = data.corpus.charset
    if saved:
        checks.same_texts(saved["charrnn"], corpus, charset.state_dict())
    model = cli.build("model", cfg.model, vocab_size=len(charset))
    if cfg.model.get("parameters"):
        size = model.gru.hidden_size
        print(f"model.parameters={cfg.model.parameters:,}: model.hidden_size={size}")
        settings["model"] |= {"hidden_size": size, "parameters": None}
        if saved:
            checks.no_changes(saved["charrnn"]["settings"], settings)
    model.boundary = charset.boundary
    if cfg.init_from:
        taken = checkpoint.initialize_model(model, charset, cfg.init_from)
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
    checks.optimization(cfg, optimizer, scheduler)
    task = cli.build("task", cfg.task, model, optimizer, scheduler, description)
    if saved:
        task.rounds, task.validations = saved["charrnn"]["rounds"], saved["charrnn"]["validations"]
        task.rollbacks = saved["charrnn"].get("rollbacks", 0)
    callbacks = [cli.build(f"callbacks.{k}", v) for k, v in cfg.callbacks.items() if v]
    for callback in callbacks:
        if type(callback).__name__ == "MedianStopping":
            callback.finished_curves = functools.partial(sweep.finished_curves, run.parent)
    if not cfg.trainer.get("enable_progress_bar", True):
        callbacks = [c for c in callbacks if type(c).__name__ != "Progress"]
    logger = cli.build("logger", cfg.logger, save_dir=str(run))
    trainer = cli.build(
        "trainer", cfg.trainer, default_root_dir=str(run), logger=logger, callbacks=callbacks,
        use_distributed_sampler=False,  # each process has rows of its own in the stream
    )  # fmt: skip
    checks.process_count(cfg, trainer)
    data.shard(trainer.global_rank, trainer.world_size)
    checks.lengths(cfg.trainer, data)
    if saved:
        checks.rows_stay(saved["charrnn"]["carry"].size(1), cfg.data.batch_size, trainer.world_size)
    if task.max_characters:
        limit_characters(trainer, task, data)
    return trainer, task, data, saved


def limit_characters(trainer, task, data) -> None:
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
    loop = trainer.fit_loop.epoch_loop
    loop.max_steps = windows if loop.max_steps < 0 else min(windows, loop.max_steps)


def is_finished(trainer, saved: dict) -> bool:
    """Whether a run that is taken up has nothing left to do."""
    ours = saved["charrnn"]
    by_rounds = 0 < (trainer.max_epochs or -1) <= ours["rounds"]
    return by_rounds or 0 < trainer.max_steps <= ours["windows"]


def job(cfg: DictConfig) -> float | None:
    """A run, or a job of a sweep: what is finished is left, what was begun goes on.

    Returns the best validation in bits per character, which a search minimizes.
    """
    run, overrides = Path(HydraConfig.get().runtime.output_dir), cli.overrides()
    if cli.in_sweep():  # which holds the folder
        before = sweep.read_job(run, 0)
        if before.state in records.DONE:
            print(f"{run.name}: {before.state} before")
            return before.best
        records.write_record(run, overrides, "running")
        if any((run / "checkpoints").glob("*.ckpt")):
            take_up_job(cfg, run)
    with contextlib.nullcontext(cli.held) if cli.in_sweep() else lock.run_lock(run) as held:
        if held is None:
            raise InputError(f"{run}: another process trains there; wait for its end")
        stopped, best = train(cfg, run, held)
        records.write_record(run, overrides, "stopped" if stopped else "finished", stopped)
    return best


def take_up_job(cfg: DictConfig, run: Path) -> None:
    """Have a job of a sweep go on from its last checkpoint, at the rate that rollbacks left."""
    from charrnn import checkpoint

    file = checkpoint.find_resumable(run)
    cfg.resume, cfg.init_from = cli.escaped(str(file)), None
    ours = checkpoint.read(file)["charrnn"]
    if ours.get("rollbacks"):
        cfg.optimizer.lr = ours["settings"]["optimizer"]["lr"]


def train(cfg: DictConfig, run: Path, held=None) -> tuple[str, float]:
    """Train, here or in processes of its own; returns what :func:`fit` does."""
    here = distributed.current_ranks()
    if here and here.rank:
        distributed.mute_stdout()
    messages.be_lenient()
    try:
        if others and not here.rank:
            others.set("run", str(run))
        parts = prepared.pop(str(run), None) or prepare(cfg, run)
        if not here and (count := parts[0].num_devices) > 1:
            return distributed.launch(one_of, count, [held], cfg, HydraConfig.instance().cfg)
        return fit(cfg, run, *parts)
    except Exception:
        if others and others.add("failed", 1) > 1:
            sys.exit(1)  # the first that failed says why
        raise


def one_of(cfg: DictConfig, hydra: DictConfig) -> tuple[str, float]:
    """A run in one of the processes that it has started."""
    setup_globals()
    HydraConfig.instance().cfg = hydra
    try:
        return train(cfg, Path(HydraConfig.get().runtime.output_dir))
    except Exception as error:
        if line := messages.explain(error):
            raise InputError(line) from error
        raise


def fit(cfg: DictConfig, run: Path, trainer, task, data, saved: dict | None) -> tuple[str, float]:
    """Train, and say how it went.

    Returns why a callback stopped it, if one did, and the best validation in bpc.
    """
    import torch

    sizes = sum(p.numel() for p in task.model.parameters())
    corpus = {"sha256": data.corpus.sha256, "characters": len(data.corpus.tokens)}
    if trainer.is_global_zero:
        provenance.write_provenance(
            run, overrides=cli.overrides(), seed=cfg.seed, corpus=corpus, parameters=sizes
        )
    backend = task.model.gru.choose_backend(trainer.strategy.root_device)
    print(
        f"{type(task.model).__name__}: {sizes:,} parameters, {len(data.corpus.charset)} characters,"
        f" backend {backend}; {len(data.stream.tokens):,} characters train,"
        f" {len(data.stream)} windows in a pass\nrun: {cli.shown_path(run)}"
    )
    for key, corpus in data.corpora.items():
        if corpus.unknown:
            share = f"{corpus.unknown:,} of {len(corpus.tokens):,} characters"
            print(f"{key}: {share} are outside the alphabet, and read as U+FFFD")
    window = data.stream.batch_size * data.stream.seq_len * trainer.world_size
    if trainer.is_global_zero:
        go_back(cfg, run, saved, window)
    finished = saved and is_finished(trainer, saved)
    if finished:
        print(f"nothing is left to do: {task.rounds} rounds are finished")
    while not finished:
        task.description["varied"] = saved["charrnn"].get("varied", {}) if saved else cli.varied()
        try:
            trainer.fit(task, data, ckpt_path=cfg.resume or None, weights_only=True)
            finished = True
        except Diverged as error:
            trainer, task, data, saved = roll_back(cfg, run, task, error)
    if trainer.world_size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    print(summary(trainer, task, run))
    if data.test and trainer.limit_test_batches and trainer.is_global_zero:
        print(tested(run, data.test, trainer.strategy.root_device))
    losses = (loss for windows, loss in task.validations if windows)
    return task.stopped, min(losses, default=math.nan) / math.log(2)


def timer_of(trainer):
    """What ends the run by ``trainer.max_time``; None where that is not given."""
    return next((c for c in trainer.callbacks if type(c).__name__ == "Timer"), None)


def go_back(cfg: DictConfig, run: Path, saved: dict | None, window: int) -> None:
    """Leave of a run's folder what stands at a checkpoint or before it.

    A window is so many characters.
    """
    from charrnn.callbacks import rewind

    if saved:
        rewind.rewind_checkpoints(run / "checkpoints", Path(cfg.resume))
    rewind.rewind_logs(run, saved["charrnn"]["windows"] if saved else -1, window)


def roll_back(cfg: DictConfig, run: Path, task, error: Diverged) -> tuple:
    """What :func:`prepare` makes, for a run that diverged to go on from before that.

    All is as the newest checkpoint that was still good has it, but for the learning rate. Raises
    the error where there may be no rollback, or there is nothing to roll back to.
    """
    from charrnn import checkpoint
    from charrnn.callbacks.loggers import add_text

    if task.on_divergence == "stop":
        raise error
    if task.rollbacks == task.max_rollbacks:
        raise Diverged(f"{error.what}, after {task.rollbacks} rollbacks", error.good) from error
    try:
        file, windows = checkpoint.find_newest(run, error.good)
    except InputError:
        raise error from None
    cfg.resume, cfg.init_from = cli.escaped(str(file)), None
    cfg.optimizer.lr *= task.rollback_factor
    number = task.rollbacks + 1
    trainer, task, data, saved = prepare(cfg, run)
    go_back(cfg, run, saved, data.stream.batch_size * data.stream.seq_len)
    task.rollbacks, task.is_rollback = number, True
    line = (
        f"{error.what}: rollback {number} of {task.max_rollbacks}, to window {windows}, with"
        f" optimizer.lr={cfg.optimizer.lr:.3g}"
    )
    print(line)
    add_text(trainer, "rollback", line, windows)
    return trainer, task, data, saved


def summary(trainer, task, run: Path) -> str:
    """The losses, and the commands that go on from here."""
    bits = [f"{v:.4f} nats, {v / math.log(2):.4f} bpc (window {w})" for w, v in task.validations]
    lines = []
    if bits:
        best = min(range(len(bits)), key=lambda i: task.validations[i][1])
        lines += [f"best validation  {bits[best]}", f"last validation  {bits[-1]}"]
    if cli.in_sweep():
        return "\n".join(lines)
    script = Path(sys.argv[0])
    train, sample = (shlex.quote(str(script.with_name(n))) for n in ("train.py", "sample.py"))
    name = "best" if len(bits) > 1 else "last"  # the untrained model alone is no best
    more = f"trainer.max_epochs={2 * max(1, task.rounds)}"
    if task.max_characters:
        more = f"task.max_characters={2 * task.max_characters}"
    elif trainer.max_steps > 0:
        more = f"trainer.max_steps={2 * trainer.max_steps}"
    if (timer := timer_of(trainer)) and timer.time_remaining() <= 0:
        seconds = round(2 * (timer.time_elapsed() + timer.time_remaining()))
        days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
        more = f"trainer.max_time={days:02}:{hours:02}:{minutes:02}:{seconds % 60:02}"
    where = shlex.quote(cli.shown_path(run))
    return "\n".join(
        [
            *lines,
            f"run              {cli.shown_path(run)}",
            f"sample from it   python {sample} checkpoint={where}/checkpoints/{name}.ckpt",
            f"go on            python {train} resume={where} {more}",
            f"curves           tensorboard --logdir {where}/tensorboard",
        ]
    )


def tested(run: Path, windows, device) -> str:
    """The loss of the best checkpoint on the text that is kept for that."""
    from charrnn import checkpoint
    from charrnn.evaluation import static as evaluation

    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    file = best if best.exists() else last
    model, _ = checkpoint.build_model(checkpoint.read(file))
    nats = evaluation.evaluate(model.to(device), windows).nats
    return f"test             {nats:.4f} nats, {nats / math.log(2):.4f} bpc ({file.name})"


if __name__ == "__main__":
    main()
