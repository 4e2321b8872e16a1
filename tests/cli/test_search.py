"""The sweeper of searches, with a launcher that answers at once: samplers, pruners, resumption."""

import contextlib
import math
import sys

import pytest
import yaml
from helpers import ROOT
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from charrnn.cli.search import Search, check_search
from charrnn.errors import InputError
from charrnn.runs import search
from charrnn.runs.search import Trial, importances, is_alive, open_study, ownership

SAMPLERS = ("tpe", "gp", "qmc", "random")
SPACE = {"optimizer.lr": "tag(log, interval(1e-4, 1e-1))", "model.num_layers": "range(1, 4)"}


def shipped(kind, name):
    """The settings of conf/sampler and conf/pruner."""
    text = (ROOT / "conf" / kind / f"{name}.yaml").read_text("utf-8")
    return yaml.safe_load(text)["hydra"]["sweeper"][kind]


class Launcher:
    """Gives each job a value computed from its overrides; ends as a killed process would."""

    def __init__(self, objective, killed_at=None):
        self.objective, self.killed_at, self.jobs = objective, killed_at, []

    def launch(self, jobs, initial_job_idx):
        done = []
        for job in jobs:
            if len(self.jobs) == self.killed_at:
                raise SystemExit(143)
            values = dict(text.split("=") for text in job)
            values.pop("hydra.sweeper.trial")
            self.jobs.append(values)
            result = JobReturn()
            result.status, result.return_value = JobStatus.COMPLETED, self.objective(values)
            done.append(result)
        return done


def objective(values):
    """Best at 1e-2 and two layers."""
    lr, layers = float(values["optimizer.lr"]), int(values.get("model.num_layers", 2))
    return "finished", 2 + abs(math.log10(lr) + 2) + 0.1 * abs(layers - 2)


def run(folder, sampler="random", launcher=None, arguments=(), **settings):
    """Search in a folder; returns the overrides of the jobs, in order."""
    folder.mkdir(exist_ok=True)
    launcher = launcher or Launcher(objective)
    sampler = shipped("sampler", sampler) if isinstance(sampler, str) else sampler
    settings = {"params": SPACE, "n_trials": 6, **settings}
    sweeper = Search(sampler, shipped("pruner", "none"), **settings)
    sweeper.config = OmegaConf.create()
    sweeper.folder, sweeper.loader, sweeper.launcher = folder, None, launcher
    sweeper.sweep(["seed=1", *arguments])
    return launcher.jobs


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("n_jobs", [1, 4])
def test_samplers(tmp_path, sampler, n_jobs):
    settings = shipped("sampler", sampler) | ({"n_startup_trials": 2} if sampler == "gp" else {})
    jobs = run(tmp_path, settings, n_jobs=n_jobs)
    assert len(jobs) == 6 == len({job["optimizer.lr"] for job in jobs})
    for job in jobs:
        assert 1e-4 <= float(job["optimizer.lr"]) <= 1e-1
        assert job["model.num_layers"] in "123" and job["seed"] == "1"
    found = open_study(tmp_path)
    assert found.best_value == min(objective(job)[1] for job in jobs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupted_and_started_again(tmp_path, sampler):
    """It tries the very values that it would have tried."""
    whole = run(tmp_path / "whole", sampler)
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", sampler, Launcher(objective, killed_at=3))
    rest = run(tmp_path / "cut", sampler)
    assert len(rest) == 3 and rest == whole[3:]
    assert run(tmp_path / "cut", sampler) == []
    assert len(run(tmp_path / "cut", sampler, n_trials=8)) == 2


def test_failed_jobs_are_tried_again_once_a_start(tmp_path):
    def fails(values):
        return None if float(values["optimizer.lr"]) > 1e-3 else objective(values)

    first = run(tmp_path, launcher=Launcher(fails))
    failed = [job for job in first if not fails(job)]
    assert len(first) == 6 and 0 < len(failed) < 6
    assert run(tmp_path, launcher=Launcher(fails)) == failed
    assert run(tmp_path) == failed
    assert run(tmp_path) == []


def test_a_search_in_which_all_fails(tmp_path):
    with pytest.raises(InputError, match="no job of the search finished"):
        run(tmp_path, launcher=Launcher(lambda values: None), n_trials=1)


def test_grids_are_in_order_and_may_grow(tmp_path):
    grid = {"params": {}, "n_trials": None, "sampler": "grid"}
    first = run(tmp_path, arguments=("optimizer.lr=3e-3,1e-2", "model.num_layers=1,2"), **grid)
    pairs = [(job["optimizer.lr"], job["model.num_layers"]) for job in first]
    assert pairs == [("0.003", "1"), ("0.003", "2"), ("0.01", "1"), ("0.01", "2")]
    seeded = {**grid, "sampler": shipped("sampler", "grid") | {"seed": 3}}
    both = ("optimizer.lr=3e-3,1e-2", "model.num_layers=1,2")
    shuffled = run(tmp_path / "other", arguments=both, **seeded)
    assert shuffled != first and sorted(map(str, shuffled)) == sorted(map(str, first))
    with pytest.raises(InputError, match=r"^model.num_layers=interval\(1,2\): a grid needs"):
        run(tmp_path / "third", arguments=("model.num_layers=interval(1,2)",), **grid)


def test_another_space_in_the_same_folder(tmp_path):
    run(tmp_path, arguments=("model.gate=a,b",))
    with pytest.raises(InputError, match=r"its study is of other values .* hydra\.sweep\.dir="):
        run(tmp_path, arguments=("model.gate=a,c",), n_trials=8)


def test_arguments_replace_the_space_and_fix_keys(tmp_path):
    jobs = run(tmp_path, arguments=("model.num_layers=1", "optimizer.lr=1e-3,1e-2"))
    assert {(job["model.num_layers"], job["optimizer.lr"]) for job in jobs} <= {
        ("1", "0.001"), ("1", "0.01"),
    }  # fmt: skip
    with pytest.raises(InputError, match="no key has several values"):
        run(tmp_path, arguments=("model.num_layers=1", "optimizer.lr=1e-3"))


def test_two_processes_share_a_study(tmp_path):
    """While one trains, another takes the rest; a trial of a living process is left to it."""
    others = []

    def slow(values):
        others.extend(run(tmp_path) if not others else [])
        return objective(values)

    mine = run(tmp_path, launcher=Launcher(slow))
    assert len(mine) == 1 and len(others) == 5
    assert len({job["optimizer.lr"] for job in mine + others}) == 6
    assert not list((tmp_path / ".search").glob("[0-9a-f]*.lock"))


def test_trials_are_counted_and_asked_for_behind_a_lock(tmp_path, monkeypatch):
    import optuna

    held, inside = [], []
    real = search.study_lock

    @contextlib.contextmanager
    def lock(folder):
        with real(folder):
            held.append(True)
            yield
            held.pop()

    for name in ("ask", "enqueue_trial"):
        method = getattr(optuna.Study, name)

        def call(*args, method=method, **kwargs):
            inside.append(bool(held))
            return method(*args, **kwargs)

        monkeypatch.setattr(optuna.Study, name, call)
    monkeypatch.setattr(search, "study_lock", lock)
    run(tmp_path, sampler="grid", params={"optimizer.lr": "0.01,0.1"}, n_trials=None)
    assert len(inside) == 4 and all(inside)


def test_locks_of_processes(tmp_path):
    with ownership(tmp_path) as name:
        assert is_alive(tmp_path, name)
    assert not is_alive(tmp_path, name) and not is_alive(tmp_path, None)


@pytest.mark.parametrize("name", ["none", "median", "hyperband", "patient"])
def test_pruners(tmp_path, name):
    """Five good curves, then a bad one."""
    pruner = shipped("pruner", name)
    inner = pruner.get("wrapped_pruner", pruner)
    inner |= {"n_warmup_steps": 20} if "n_warmup_steps" in inner else {}
    if name == "hyperband":
        pruner |= {"min_resource": 10, "max_resource": 90}
    study, space = open_study(tmp_path, search.build(pruner)), {}
    ends = []
    for curve in [[4, 3, 2, 1]] * 5 + [[9, 10, 10, 10]]:
        trial = Trial(tmp_path, study.ask(space).number, pruner)
        ends = [trial.report(10 * at, bpc) for at, bpc in enumerate(curve, 1)]
        study.tell(trial.number, curve[-1])
    assert any(ends) == (name != "none")
    if name == "median":
        assert ends == [False, True, True, True]  # after the warm-up


def test_importances(tmp_path):
    assert importances(tmp_path) == {}
    run(tmp_path, n_trials=30)
    found = importances(tmp_path)
    assert list(found) == ["optimizer.lr", "model.num_layers"]
    assert sum(found.values()) == pytest.approx(1)
    (tmp_path / search.JOURNAL).write_bytes(b"{")
    assert importances(tmp_path) == {}


BAD = {
    "n_trials": [0, "many"], "n_jobs": [0], "direction": ["up"], "sampler": [None],
    "pruner": [{"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": -1}],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(k, v) for k in BAD for v in BAD[k]], ids=str)
def test_settings_out_of_range(key, value):
    settings = yaml.safe_load((ROOT / "conf/hydra/sweeper/search.yaml").read_text("utf-8"))
    settings |= {"sampler": shipped("sampler", "tpe"), "pruner": shipped("pruner", "none")}
    settings["n_trials"] = 3
    check_search(settings)
    with pytest.raises(InputError, match=rf"^hydra\.sweeper\.{key}[=:]"):
        check_search(settings | {key: value})
    unknown = settings["sampler"] | {"speed": 3}
    with pytest.raises(InputError, match=r"^hydra\.sweeper\.sampler: .*speed"):
        check_search(settings | {"sampler": unknown})


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r'pip install "charrnn\[sweep\]"'):
        search.build(shipped("sampler", "tpe"))


@pytest.mark.parametrize("option", ["sampler=gp", "pruner=median"])
def test_a_sampler_without_a_search(invoke, tmp_path, option):
    result = invoke("train", option, cwd=tmp_path)
    expected = f"error: {option.partition('=')[0]}: only a search has one; give sweep=search too\n"
    assert (result.code, result.err) == (2, expected)
