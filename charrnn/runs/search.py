"""The study of a search, in its folder: Optuna's journal, the trials of its jobs, importances.

Trials carry what outlives their process: ``owner``, a lock that the sweeping process holds, and for
a trial that is tried again ``repeats``, the number of the one that failed.
"""

import contextlib
import pkgutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock

from charrnn.errors import InputError

JOURNAL, STUDY = "study.journal", "charrnn"
MIN_TRIALS = 4
"""Finished trials without which importances mean nothing."""


@contextlib.contextmanager
def quiet_optuna() -> Iterator:
    """Optuna, without its log and its warnings about experimental features.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError('a search needs Optuna; pip install "charrnn[sweep]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield optuna


def open_study(sweep: Path, pruner=None, direction: str = "minimize"):
    """Open the study of a sweep's folder, or begin it there."""
    with quiet_optuna() as optuna:
        return optuna.create_study(
            storage=open_storage(sweep), study_name=STUDY, load_if_exists=True, pruner=pruner,
            direction=direction,
        )  # fmt: skip


def open_storage(sweep: Path):
    """Open the journal, a file that several processes, also on several machines, append to."""
    with quiet_optuna() as optuna:
        backend = optuna.storages.journal.JournalFileBackend(str(sweep / JOURNAL))
        return optuna.storages.JournalStorage(backend)


@dataclass(frozen=True)
class Trial:
    """The trial of a job, for the process that trains it.

    Args:
        sweep: folder of the search.
        number: of the trial.
        pruner: a class of ``optuna.pruners`` as ``_target_``, and its arguments.
    """

    sweep: Path
    number: int
    pruner: Mapping

    def report(self, windows: int, bpc: float) -> bool:
        """Record a validation; returns whether the pruner ends the job after it."""
        with quiet_optuna():
            # No trial of Optuna's outlives its process, so the storage and the pruner are asked.
            pruner, storage = build(self.pruner), open_storage(self.sweep)
            study_id = storage.get_study_id_from_name(STUDY)
            trial = storage.get_trial_id_from_study_id_trial_number(study_id, self.number)
            storage.set_trial_intermediate_value(trial, windows, bpc)
            return pruner.prune(open_study(self.sweep, pruner), storage.get_trial(trial))


def build(settings: Mapping):
    """Build a sampler or a pruner from its ``_target_``, and one that it wraps.

    Raises:
        InputError: an argument is unknown or out of range.
    """
    settings = {k: build(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    name = settings.pop("_target_")
    with quiet_optuna():
        try:
            return pkgutil.resolve_name(name)(**settings)
        except (TypeError, ValueError) as error:
            kind = "pruner" if "pruners" in name else "sampler"
            raise InputError(f"hydra.sweeper.{kind}: {error}") from error


def study_lock(sweep: Path) -> filelock.BaseFileLock:
    """The lock that is held while trials are counted and asked for."""
    return filelock.FileLock(sweep / ".search" / "study.lock")


@contextlib.contextmanager
def ownership(sweep: Path) -> Iterator[str]:
    """Hold a lock in a sweep's folder by which other processes know that this one lives."""
    name = uuid.uuid4().hex
    lock = owner_lock(sweep, name)
    Path(lock.lock_file).parent.mkdir(exist_ok=True)
    with lock:
        yield name
    Path(lock.lock_file).unlink(missing_ok=True)


def owner_lock(sweep: Path, name: str) -> filelock.BaseFileLock:
    """The lock of the process that asked for a trial."""
    return filelock.FileLock(sweep / ".search" / f"{name}.lock")


def is_alive(sweep: Path, name: str | None) -> bool:
    """Whether the process that asked for a trial still runs."""
    if name is None or not Path(owner_lock(sweep, name).lock_file).exists():
        return False
    try:
        with owner_lock(sweep, name).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


def importances(sweep: Path) -> dict[str, float]:
    """Return the importance of each searched key, the largest first, together 1.

    By PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), from the finished trials. Empty where
    there is no study, it cannot be read, or it has too few trials or only one key.
    """
    if not (sweep / JOURNAL).exists():
        return {}
    try:
        with quiet_optuna() as optuna:
            study = open_study(sweep)
            done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
            if len(done) < MIN_TRIALS or len(done[0].params) < 2:
                return {}
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except Exception:  # a page is written in spite of a damaged journal, or without Optuna
        return {}
