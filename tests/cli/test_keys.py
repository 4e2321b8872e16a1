"""Every key of the files of conf/: a changed value, and the difference that it makes.

Looked at is what a run is built of, before it trains. A key without a row fails, and so does a
parameter of one of the project's classes there. Those of ``trainer`` are in
``tests/integration/test_trainer_keys.py``, those of sample and evaluate in
``test_command_keys.py``.
"""

import copy
import functools
import inspect
import json

import pytest
import torch
from conf_keys import options
from helpers import TEXT, TINY
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict
from pytorch_lightning import Trainer
from runs_in_process import composed

from charrnn import InputError
from charrnn.cli.checks import optimization
from charrnn.cli.hydra_internals import without_hydra
from charrnn.cli.instantiate import get_class
from charrnn.cli.prepare import Job, prepare
from charrnn.cli.search import check_search
from charrnn.data import datamodule
from charrnn.models import contract
from charrnn.runs import search


def at(path):
    """A look at an attribute of a run."""

    def look(run):
        for name in path.split("."):
            run = run[name] if isinstance(run, dict) else getattr(run, name)
        return run

    return look


def callback(kind, name):
    """A look at an attribute of a callback."""
    return lambda run: [getattr(c, name) for c in run.trainer.callbacks if type(c).__name__ == kind]


def logger(name):
    """A look at an attribute of the logger."""
    return lambda run: str(getattr(run.trainer.loggers[0], name))


def characters(run):
    return run.data.corpus.charset.alphabet


def parts(run):
    return {name: (str(tokens[:9]), a, b) for name, (tokens, a, b) in run.data.parts.items()}


def weights(run):
    return sum(p.double().sum().item() for p in run.task.model.parameters())


def loss(run):
    """Of the first window, as it is trained."""
    torch.manual_seed(0)
    window = next(iter(run.data.stream))
    state = contract.initial_state(run.task.model, 3)
    return contract.loss(run.task.model, window.inputs, window.targets, state)[0].item()


def steps(run):
    """A parameter along some steps of the optimizer."""
    weight = torch.tensor([[1.0, 2.0]], requires_grad=True)
    made, seen = run.task.make_optimizer([weight]), []
    for gradient in (1.0, -2.0, 0.5):
        weight.grad = torch.full_like(weight, gradient)
        made.step()
        seen += weight.tolist()
    return seen


def rates(run):
    """The learning rate along some losses."""
    made = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    takes = inspect.signature(run.task.make_scheduler).parameters
    total = {"total_steps": 9} if "total_steps" in takes else {}
    scheduler, seen = run.task.make_scheduler(made, **total), []
    takes_loss = "metrics" in inspect.signature(scheduler.step).parameters
    for value in (3.0, 2.0, 2.0, 2.5, 2.5, 2.5, 2.5, 2.5):
        made.step()
        scheduler.step(value) if takes_loss else scheduler.step()
        seen.append(made.param_groups[0]["lr"])
    return seen


def hydra(path):
    """A look at what the launcher would be told."""
    return lambda run: vars(instantiate(run.config.hydra.launcher))[path]


def drawn(run):
    """The first values of a sampler."""
    with search.quiet_optuna() as optuna:
        sampler = search.build(OmegaConf.to_container(run.config.hydra.sweeper.sampler))
        study = optuna.create_study(sampler=sampler)
        space = {"x": optuna.distributions.FloatDistribution(0, 1)}
        return [study.ask(space).params["x"] for _ in range(2)]


def built(kind, name):
    """A look at an attribute of a sampler or a pruner."""
    return lambda run: vars(
        search.build(OmegaConf.to_container(run.config.hydra.sweeper[kind]))
    )[name]  # fmt: skip


def sweeper(name):
    """A look at an attribute of the sweeper of a search."""

    def look(run):
        settings = OmegaConf.to_container(run.config.hydra.sweeper)
        check_search(settings)
        return getattr(instantiate(run.config.hydra.sweeper, _recursive_=False), name)

    return look


OWN_TEXT = {"data.path": ("other.txt", at("data.corpus.sha256"))}
FETCHED = {
    "data.url": ("https://example.org/x", at("data.url")),
    "data.sha256": ("0" * 64, at("data.sha256")),
}
SIZES = {"data.valid_size": (50, parts), "data.test_size": (50, parts)}
LIBRARY = {
    "data.max_bytes": (300, at("data.max_bytes")),
    "data.library": ("all", at("data.library")),
}
TEXT_KEYS = {
    "data.unit": ("byte", at("data.corpus.charset.unit")),
    "data.normalize": ("nfd", at("data.corpus.charset.normalize")),
    "data.lowercase": (True, characters),
    "data.document": (r"\n\n", at("data.corpus.charset.documents")),
    "data.newlines": ("keep", characters),
    "data.encoding": ("latin-1", characters),
    "data.min_count": (5, characters),
    "data.charset": ("other.txt", characters),
    "data.train_fraction": (0.5, parts),
    "data.valid_path": ("other.txt", parts),
    "data.test_path": ("other.txt", parts),
    "data.batch_size": (4, at("data.stream.batch_size")),
    "data.seq_len": (9, at("data.stream.seq_len")),
    "data.cache_dir": ("elsewhere", at("data.cache_dir")),
}
MODEL = {
    "model.hidden_size": (9, loss),
    "model.num_layers": (3, loss),
    "model.dropout": (0.5, loss),
    "model.parameters": (1500, weights),
}
GRU = MODEL | {
    "model.reset": ("before", loss),
    "model.gate": ("hard_sigmoid", loss),
    "model.backend": ("torch", at("task.model.gru.backend")),
}
FOREACH = {"optimizer.foreach": (False, lambda run: run.task.make_optimizer.keywords["foreach"])}
RATE = {"optimizer.lr": (0.5, steps)}
SAMPLER = {"hydra.sweeper.sampler.seed": (7, drawn)}
STARTUP = {"hydra.sweeper.sampler.n_startup_trials": (3, built("sampler", "_n_startup_trials"))}
TABLE = {
    "data/text": OWN_TEXT | FETCHED | SIZES | LIBRARY | TEXT_KEYS,
    "data/stdlib": OWN_TEXT | LIBRARY,
    "model/gru_encode": GRU,
    "model/gru_resize": GRU,
    "model/lstm": MODEL,
    "model/min_gru": MODEL,
    "model/own": {},
    "optimizer/rmsprop": RATE | FOREACH | {"optimizer.alpha": (0.5, steps)},
    "optimizer/adam": RATE | FOREACH | {"optimizer.betas": ([0.5, 0.5], steps)},
    "optimizer/adamw": RATE | FOREACH | {
        "optimizer.betas": ([0.5, 0.5], steps), "optimizer.weight_decay": (0.5, steps),
    },
    "optimizer/sgd": RATE | FOREACH | {"optimizer.momentum": (0.5, steps)},
    "optimizer/own": {},
    "scheduler/adaptive": {"scheduler.worse": (0.3, rates), "scheduler.stalled": (0.3, rates)},
    "scheduler/constant": {"scheduler.factor": (0.3, rates)},
    "scheduler/cosine": {"scheduler.warmup_steps": (3, rates), "scheduler.final": (0.5, rates)},
    "scheduler/plateau": {"scheduler.factor": (0.3, rates), "scheduler.patience": (3, rates)},
    "scheduler/own": {},
    "logger/csv": {"logger.csv.name": ("mine", logger("log_dir"))},
    "logger/tensorboard": {
        "logger.tensorboard.name": ("mine", logger("log_dir")),
        "logger.tensorboard.version": ("v", logger("log_dir")),
        "logger.tensorboard.default_hp_metric": (True, logger("_default_hp_metric")),
    },
    "logger/wandb": {
        "logger.wandb.project": ("mine", logger("_project")),
        "logger.wandb.name": ("mine", logger("_name")),
        "logger.wandb.offline": (True, logger("_offline")),
    },
    "logger/mlflow": {
        "logger.mlflow.experiment_name": ("mine", logger("_experiment_name")),
        "logger.mlflow.run_name": ("mine", logger("_run_name")),
        "logger.mlflow.save_dir": ("mine", logger("save_dir")),
    },
    "logger/none": {},
    "neurons/tensorboard": {
        "callbacks.neurons.every_n_steps": (3, callback("Neurons", "every_n_steps")),
        "callbacks.neurons.text": ("abc", callback("Neurons", "text")),
        "callbacks.neurons.length": (5, callback("Neurons", "length")),
        "callbacks.neurons.units": ([1, 2], callback("Neurons", "units")),
    },
    "launcher/joblib": {"hydra.launcher.n_jobs": (3, hydra("joblib"))},
    "launcher/slurm": {
        f"hydra.launcher.{name}": (value, hydra("params"))
        for name, value in {
            "timeout_min": 5, "cpus_per_task": 3, "gpus_per_node": 0, "partition": "p",
            "signal_delay_s": 9, "max_num_timeout": 7, "array_parallelism": 2,
        }.items()
    },
    "launcher/submitit_local": {"hydra.launcher.timeout_min": (5, hydra("params"))},
    "sampler/tpe": SAMPLER | STARTUP,
    "sampler/gp": SAMPLER | STARTUP,
    "sampler/random": SAMPLER,
    "sampler/grid": {"hydra.sweeper.sampler.seed": (7, sweeper("sampler"))},
    "sampler/qmc": SAMPLER | {
        "hydra.sweeper.sampler.scramble": (False, built("sampler", "_scramble")),
    },
    "pruner/median": {
        f"hydra.sweeper.pruner.{name}": (5, built("pruner", f"_{name}"))
        for name in ("n_startup_trials", "n_warmup_steps")
    },
    "pruner/hyperband": {
        f"hydra.sweeper.pruner.{name}": (value, built("pruner", f"_{name}"))
        for name, value in {"min_resource": 5, "max_resource": 99, "reduction_factor": 2}.items()
    },
    "pruner/patient": {
        "hydra.sweeper.pruner.patience": (5, built("pruner", "_patience")),
        "hydra.sweeper.pruner.min_delta": (0.5, built("pruner", "_min_delta")),
        **{
            f"hydra.sweeper.pruner.wrapped_pruner.{name}": (
                5, lambda run, name=name: vars(built("pruner", "_wrapped_pruner")(run))[f"_{name}"]
            )
            for name in ("n_startup_trials", "n_warmup_steps")
        },
    },
    "pruner/none": {},
    "hydra/sweeper/search": {
        "hydra.sweeper.sampler": (
            {"_target_": "optuna.samplers.RandomSampler"}, sweeper("sampler"),
        ),
        "hydra.sweeper.pruner": ({"_target_": "optuna.pruners.NopPruner"}, sweeper("pruner")),
        "hydra.sweeper.n_trials": (3, sweeper("n_trials")),
        "hydra.sweeper.n_jobs": (3, sweeper("n_jobs")),
        "hydra.sweeper.direction": ("maximize", sweeper("direction")),
        "hydra.sweeper.params": ({"seed": "1,2"}, sweeper("params")),
        "hydra.sweeper.trial": (5, lambda run: run.config.hydra.sweeper.trial),  # set in each job
    },
    "train": {
        "task.reduction": ("sum", at("task.reduction")),
        "task.l2": (0.5, at("task.l2")),
        "task.rollover": ("reset", at("task.rollover")),
        "task.max_characters": (50, at("trainer.fit_loop.epoch_loop.max_steps")),
        "task.on_divergence": ("rollback", at("task.on_divergence")),
        "task.spike_factor": (9.0, at("task.monitor.spike_factor")),
        "task.rollback_factor": (0.1, at("task.rollback_factor")),
        "task.max_rollbacks": (1, at("task.max_rollbacks")),
        "task.cuda_graph": ("off", at("task.cuda_graph")),
        "callbacks.samples.every_n_steps": (3, callback("Samples", "every_n_steps")),
        "callbacks.samples.early": (3, callback("Samples", "early")),
        "callbacks.samples.length": (3, callback("Samples", "length")),
        "callbacks.samples.temperature": (0.5, callback("Samples", "temperature")),
        "callbacks.samples.prompt": ("a", callback("Samples", "prompt")),
        "callbacks.progress.seconds": (3.0, callback("Progress", "seconds")),
        "callbacks.checkpoint.every_n_steps": (3, callback("Checkpoint", "every_n_steps")),
        "callbacks.checkpoint.keep": (3, callback("Checkpoint", "keep")),
        "callbacks.checkpoint.on_error": ("stop", callback("Checkpoint", "on_error")),
        "callbacks.report.points": (30, callback("Report", "points")),
        "callbacks.report.samples": (3, callback("Report", "samples")),
        "seed": (2, weights),
        "matmul_precision": ("high", lambda run: torch.get_float32_matmul_precision()),
        "resume": None,  # see below
        "init_from": ("trained", weights),
        "allow_targets": (["other_models"], lambda run: run.config.allow_targets),
    },
}  # fmt: skip
"""For each file of settings and each key: another value, and what must differ with it."""
ROWS = [(option, key) for option, rows in TABLE.items() for key in rows if rows[key]]
KEYS = options()
PRESETS = [name for name in KEYS if name.startswith(("experiment/", "sweep/"))]
PRESETS += ["data/enwik8", "data/text8", "data/tiny_shakespeare"]
SEARCH = {
    "hydra.sweeper.sampler": {"_target_": "optuna.samplers.QMCSampler"},
    "hydra.sweeper.pruner": {"_target_": "optuna.pruners.MedianPruner"},
    "hydra.sweeper.n_trials": 2,
}
UNFETCHED = {"data.path": None, "data.url": "https://example.org/y", "data.sha256": "1" * 64}
BEFORE = {
    **{key: UNFETCHED for key in FETCHED},
    **{key: {"data.path": None, "data.max_bytes": 200} for key in LIBRARY},
    **{key: SEARCH for key in TABLE["hydra/sweeper/search"]},
    "data.unit": {"data.newlines": "keep"},
    "scheduler.final": {"scheduler.warmup_steps": 1},
}
"""What else is set for a key, unchanged and changed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("keys")
    (folder / "text.txt").write_bytes(TEXT[:2500].replace("\n", "\r\n").encode() + b"\xe4 \xc3\xa4")
    (folder / "other.txt").write_text(TEXT[3000:3500], "utf-8")
    (folder / "trained").symlink_to(trained)
    return folder


class Built:
    """A run, and its configuration with Hydra's part."""

    def __init__(self, run, config):
        self.run, self.config = run, config

    def __getattr__(self, name):
        return getattr(self.run, name)


@pytest.fixture(scope="module")
def build(folder):
    """A function from a file of settings and changed keys to what is built of them."""

    def composed_with(option):
        group, _, name = option.removeprefix("hydra/").partition("/")
        chosen = {"logger": "none", "data": "text"} | {group: name}
        if group in ("sampler", "pruner"):
            chosen["sweep"] = "search"
        if group == "sweeper":
            chosen = {"hydra/sweeper": "search"}
        given = [f"{key}={value}" for key, value in chosen.items() if value]
        encoding = "utf-8" if option == "data/text" else "latin-1"
        given += ["data.path=text.txt", *TINY, f"data.encoding={encoding}"]
        return composed(given, is_sweep="hydra" in str(next(iter(TABLE[option]), "")))

    @functools.cache
    def unchanged(option):
        config = composed_with(option)
        if option.split("/")[0] in ("launcher", "sampler", "pruner", "hydra"):
            OmegaConf.set_readonly(config.hydra, False)
            return config
        return without_hydra(config)

    def built(option, changes):
        config = copy.deepcopy(unchanged(option))
        with open_dict(config):
            for key, value in changes.items():
                OmegaConf.update(config, key, value, merge=not isinstance(value, dict))
        run = None if "hydra" in config else prepare(config, Job(folder / "run"))
        return Built(run, config)

    @functools.cache
    def of_option(option, before):
        return built(option, json.loads(before))

    def build(option, changes, before=None):
        return built(option, changes) if before is None else of_option(option, json.dumps(before))

    return build


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datamodule, "fetch", lambda url, sha256, cache_dir: folder / "text.txt")
    monkeypatch.setattr(datamodule, "stdlib_files", lambda library: [folder / "other.txt"])
    yield folder
    torch.set_float32_matmul_precision("highest")


def test_the_table_has_every_key():
    others = {key for rows in TABLE.values() for key in rows}
    others |= {f"trainer.{name}" for name in inspect.signature(Trainer).parameters}
    for option, keys in KEYS.items():
        if option in ("sample", "evaluate"):
            continue
        if option in PRESETS:
            own = ("sweep.size", "hydra.sweeper.params.", "callbacks.samples")
            missing = {key for key in keys if not (key in others or key.startswith(own))}
        else:
            missing = {key for key in keys if not key.startswith("trainer.")} - set(TABLE[option])
        assert not missing, f"conf/{option}.yaml: a row for each of {sorted(missing)}"


@pytest.mark.filterwarnings("ignore:.*experimental")
@pytest.mark.parametrize(("option", "key"), ROWS)
def test_key(build, here, option, key):
    value, look = TABLE[option][key]
    before = BEFORE.get(key, {})
    assert look(build(option, {}, before)) != look(build(option, before | {key: value}))


def test_resume_takes_all_from_a_run(here):
    config = without_hydra(composed(["resume=trained"]))
    run = prepare(config, Job(here / "run"))
    assert run.resumed_from["charrnn"]["windows"] == 40 and config.data.batch_size == 3


@pytest.mark.parametrize("kind", ["rmsprop", "adam", "adamw", "sgd"])
def test_parameters_of_optimizers(build, here, kind):
    """Each of torch's gets there, or is refused in one line."""
    built = build(f"optimizer/{kind}", {})
    config, scheduler = built.config, built.task.make_scheduler
    for name, parameter in inspect.signature(get_class(config.optimizer)).parameters.items():
        default = parameter.default
        if name == "params" or not isinstance(default, bool | float | int | None):
            continue
        value = not default if isinstance(default, bool | None) else default * 0.5 + 0.25
        changed = copy.deepcopy(config)
        OmegaConf.update(changed, f"optimizer.{name}", value, force_add=True)
        optimizer = instantiate(changed.optimizer)
        try:
            optimization(changed, optimizer, scheduler, torch.device("cpu"))
        except InputError as error:
            assert name in ("capturable", "differentiable", "fused", "nesterov"), error
            assert str(error).startswith("optimizer")
        else:
            assert optimizer([torch.ones(1)]).defaults[name] == value


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        ("optimizer", "torch.optim.LBFGS", "reads a window once"),
        ("optimizer", "torch.optim.SparseAdam", "does not support dense gradients"),
        ("scheduler", "torch.optim.lr_scheduler.LRScheduler", "is a base class"),
    ],
)
def test_classes_that_do_not_train(build, here, key, name, words):
    node = {"_target_": name, "_partial_": True}
    with pytest.raises(InputError, match=words):
        build("model/lstm", {key: node})


def test_a_scheduler_does_not_begin_in_the_middle(build, here):
    with pytest.raises(InputError, match=r"scheduler\.last_epoch=4: param 'initial_lr'"):
        build("scheduler/constant", {"scheduler.last_epoch": 4})
