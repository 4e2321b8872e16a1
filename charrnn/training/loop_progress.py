"""The counters of Lightning's loops in a checkpoint."""


def set_loop_progress(loops: dict, rounds: int, round_windows: int, windows: int) -> None:
    """Set the counters in a checkpoint's "loops" to their values between two windows.

    A checkpoint that is saved in any hook then resumes alike: in its round, at the next window.

    Args:
        loops: state dicts of Lightning's loops, changed in place.
        rounds: finished rounds.
        round_windows: finished windows of the current round.
        windows: finished windows of the run.
    """
    loop = loops["fit_loop"]

    def count(progress: dict, total: int, current: int) -> None:
        for part, value in (("total", total), ("current", current)):
            for key in progress[part]:
                progress[part][key] = value

    count(loop["epoch_progress"], rounds, rounds)
    for part in ("total", "current"):
        loop["epoch_progress"][part] |= {"ready": rounds + 1, "started": rounds + 1}
    batches = loop["epoch_loop.batch_progress"]
    count(batches, windows, round_windows)
    batches["is_last_batch"] = False
    optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    count(optimizer["step"], windows, round_windows)
    count(optimizer["zero_grad"], windows, round_windows)
    validation = loop["epoch_loop.val_loop.batch_progress"]
    count(validation, 0, 0)
    validation["is_last_batch"] = False
