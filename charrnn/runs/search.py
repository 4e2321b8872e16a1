"""Searches: a study of Optuna's taken up again from its file."""

import warnings


def take_up(storage: str, name: str, direction: str, wanted: int) -> tuple[int, int]:
    """Prepare a study for going on, and count what is left of it.

    Trials that were under way when the search ended, and those that failed, are put in line again
    with the values that they had, before any new ones.

    Returns:
        How many of ``wanted`` trials are left, and how many the study has in all, of every state.
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
    lined_up = [waiting_values(t) for t in trials if t.state == TrialState.WAITING]
    for trial in trials:
        again = trial.state in (TrialState.RUNNING, TrialState.FAIL) and trial.params
        if again and trial.params not in (*done, *lined_up):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.enqueue_trial(trial.params)
            lined_up.append(trial.params)
    return max(0, wanted - len(done)), len(trials)


def waiting_values(trial) -> dict:
    """The values that a trial in line is going to have."""
    return trial.system_attrs.get("fixed_params", {})
