"""Resuming a hyperparameter search from the file of its Optuna study."""

import warnings


def resume_study(storage: str, name: str, direction: str, n_trials: int) -> tuple[int, int]:
    """Prepare a study for the rest of its trials; creates the study if there is none.

    Trials that were running when the search ended, and failed ones, are enqueued again with the
    same values, before new ones.

    Args:
        storage: URL of the study's database.
        name: of the study.
        direction: "minimize" or "maximize".
        n_trials: number of trials that the whole search has.

    Returns:
        The number of trials that remain, and the number of trials of every state in the study.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, study_name=name, direction=direction, load_if_exists=True
    )
    trials = study.get_trials()
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    done = [t.params for t in trials if t.state == TrialState.COMPLETE]
    enqueued = [_enqueued_params(t) for t in trials if t.state == TrialState.WAITING]
    for trial in trials:
        is_open = trial.state in (TrialState.RUNNING, TrialState.FAIL) and trial.params
        if is_open and trial.params not in (*done, *enqueued):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.enqueue_trial(trial.params)
            enqueued.append(trial.params)
    return max(0, n_trials - len(done)), len(trials)


def _enqueued_params(trial) -> dict:
    """The values that a waiting trial will have."""
    return trial.system_attrs.get("fixed_params", {})
