"""The sweeper of searches: Optuna chooses the values of jobs, which any launcher of Hydra runs.

Its keys are those of Hydra's own Optuna sweeper, so that a configuration can change to that.
"""

import itertools
import math
import random
from pathlib import Path

import numpy as np
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from charrnn.cli.schema import check_call
from charrnn.cli.search_space import distribution, parse_space
from charrnn.errors import InputError, check
from charrnn.runs import search

TARGET = "charrnn.cli.search.Search"
DIRECTIONS = ("minimize", "maximize")
GRID = "optuna.samplers.GridSampler"
QMC, RANDOM = "optuna.samplers.QMCSampler", "optuna.samplers.RandomSampler"


class Search(Sweeper):
    """Runs ``n_trials`` jobs, whose values a sampler chooses from the results of earlier ones.

    Its study lies in the sweep's folder. Started again, a search repeats trials that failed or
    whose process ended, with the same values, and goes on; several processes may share a folder.

    Args:
        sampler: a class of ``optuna.samplers`` as ``_target_``, and its arguments. GridSampler
            tries every combination in order, or shuffled by its ``seed``.
        pruner: a class of ``optuna.pruners``, for :class:`charrnn.callbacks.Pruning`.
        n_trials: jobs of the whole search; None is all of a grid.
        n_jobs: jobs that are given to the launcher at once.
        direction: minimize or maximize the best validation in bits per character.
        params: the space: a value of Hydra's grammar for each key, as on the command line.
        trial: number of the trial, in the configuration of a job.
    """

    def __init__(
        self,
        sampler: dict,
        pruner: dict,
        n_trials: int | None = None,
        n_jobs: int = 1,
        direction: str = "minimize",
        params: dict | None = None,
        trial: int | None = None,
    ):
        check("n_trials", n_trials, n_trials is None or n_trials > 0, "at least 1, or null")
        check("n_jobs", n_jobs, n_jobs > 0, "at least 1")
        check("direction", direction, direction in DIRECTIONS, " or ".join(DIRECTIONS))
        self.sampler, self.pruner = dict(sampler), dict(pruner)
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.params = dict(params or {})

    def setup(self, *, hydra_context, task_function, config) -> None:
        self.config, self.folder = config, Path(config.hydra.sweep.dir)
        self.loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from charrnn.cli.sweep import interrupted

        fixed, swept = parse_space(self.params, arguments, self.loader)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")  # marks a sweep's folder
        with search.quiet_optuna() as optuna, search.ownership(self.folder) as self.owner:
            self.states = optuna.trial.TrialState
            self.space = {key: distribution(optuna, swept[key]) for key in swept}
            pruner = search.build(self.pruner)
            self.study = search.open_study(self.folder, pruner, self.direction)
            self.begin(swept)
            while asked := self.ask():
                first, trials = asked
                jobs = [
                    [*fixed, *(f"{k}={v}" for k, v in t.params.items()),
                     f"hydra.sweeper.trial={t.number}"]
                    for t in trials
                ]  # fmt: skip
                done = self.launcher.launch(jobs, initial_job_idx=first)
                if interrupted.is_set():
                    return
                for trial, job in zip(trials, done):
                    self.tell(trial.number, job)
            if not self.study.get_trials(states=(self.states.COMPLETE,)):
                raise InputError("no job of the search finished")

    def begin(self, swept: dict[str, Override]) -> None:
        """Enqueue a grid, and again the trials that failed or whose process ended."""
        with search.study_lock(self.folder):
            trials = self.study.get_trials()
            repeated = {t.user_attrs.get("repeats") for t in trials}
            for trial in trials:
                if trial.state == self.states.RUNNING and not search.is_alive(
                    self.folder, trial.user_attrs.get("owner")
                ):
                    self.study.tell(trial.number, state=self.states.FAIL)
                    trial.state = self.states.FAIL
                failed = trial.state == self.states.FAIL and trial.params
                if failed and trial.number not in repeated:
                    self.enqueue(trial.params, repeats=trial.number)
            if self.sampler["_target_"] == GRID:
                known = [t.user_attrs.get("params", t.params) for t in trials]
                grid = self.grid(swept)
                for params in grid[: self.n_trials]:
                    if params not in known:
                        self.enqueue(params)
                self.n_trials = min(self.n_trials or len(grid), len(grid))
            self.first = len(trials)

    def enqueue(self, params: dict, **attributes: int) -> None:
        """Have a trial of these values asked for before the sampler's."""
        self.study.enqueue_trial(params, user_attrs={"params": params, **attributes})

    def grid(self, swept: dict[str, Override]) -> list[dict[str, str]]:
        """All combinations of values."""
        for key, space in self.space.items():
            if not hasattr(space, "choices"):
                raise InputError(f"{key}={swept[key].get_value_string()}: a grid needs its values")
        combinations = itertools.product(*(space.choices for space in self.space.values()))
        grid = [dict(zip(self.space, values)) for values in combinations]
        if self.sampler.get("seed") is not None:
            random.Random(self.sampler["seed"]).shuffle(grid)
        return grid

    def ask(self) -> tuple[int, list] | None:
        """How many trials have begun, and the next ones, as many as run at once; None after all."""
        with search.study_lock(self.folder):
            trials = self.study.get_trials()
            repeated = {t.user_attrs.get("repeats") for t in trials}
            old = (t for t in trials if t.number < self.first and t.state == self.states.FAIL)
            repeated |= {t.number for t in old if not t.params}
            begun = sum(t.state != self.states.WAITING and t.number not in repeated for t in trials)
            asked = []
            for number in range(begun, min(begun + self.n_jobs, self.n_trials)):
                self.study.sampler = self.sampler_of(number)
                try:
                    asked.append(trial := self.study.ask(self.space))
                except ValueError as error:
                    raise InputError(
                        f"{self.folder}: its study is of other values ({error}); name another"
                        " folder, hydra.sweep.dir="
                    ) from error
                trial.set_user_attr("owner", self.owner)
            return (begun, asked) if asked else None

    def sampler_of(self, number: int):
        """The sampler of a trial; its draw does not depend on where a search was interrupted."""
        settings = dict(self.sampler)
        if settings["_target_"] == GRID:  # all is enqueued
            settings = {"_target_": RANDOM}
        if settings.get("seed") is not None:
            seed = int(np.random.SeedSequence([settings["seed"], number]).generate_state(1)[0])
            if settings["_target_"] == QMC:  # one sequence; the study knows the position in it
                settings.setdefault("independent_sampler", {"_target_": RANDOM, "seed": seed})
            else:
                settings["seed"] = seed
        return search.build(settings)

    def tell(self, number: int, job) -> None:
        """Record what became of a job."""
        done = job.return_value if job.status == JobStatus.COMPLETED else None
        state, best = done or ("failed", math.nan)
        self.study.sampler = search.build({"_target_": RANDOM})
        if state == "finished" and math.isfinite(best):
            self.study.tell(number, best)
        else:
            pruned = state == "stopped"
            self.study.tell(number, state=self.states.PRUNED if pruned else self.states.FAIL)


def check_search(settings: dict) -> None:
    """Raise InputError for what is wrong with the sweeper's settings, if it is this one."""
    if settings["_target_"] == TARGET:
        for kind in ("sampler", "pruner"):
            node = settings[kind]
            check(f"hydra.sweeper.{kind}", node, bool(node and "_target_" in node), f"{kind}=NAME")
        plain = {k: v for k, v in settings.items() if k not in ("sampler", "pruner", "_recursive_")}
        check_call(Search, plain, "hydra.sweeper.")
        if settings["sampler"]["_target_"] != GRID:
            search.build(settings["sampler"])
            n_trials = settings["n_trials"]
            check("hydra.sweeper.n_trials", n_trials, n_trials is not None, "a number of jobs")
        search.build(settings["pruner"])
        try:
            Search(**{k: v for k, v in settings.items() if not k.startswith("_")})
        except InputError as error:
            raise InputError(f"hydra.sweeper.{error}") from error
