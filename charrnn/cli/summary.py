"""The lines at the end of a run: its losses, and the commands to go on from here."""

import math

from charrnn import checkpoint
from charrnn.cli.loggers import curves
from charrnn.cli.prepare import Run
from charrnn.cli.trainer import stop_reason
from charrnn.data.files import relative_path, shell_path
from charrnn.errors import shell_quote
from charrnn.evaluation.static import evaluate


def summary(run: Run) -> str:
    """Best and last validation; of a run that is no job of a sweep, also where it is and what to
    do next."""
    validations = run.task.validations
    bits = [f"{v:.4f} nats, {v / math.log(2):.4f} bpc (window {w})" for w, v in validations]
    lines = []
    if bits:
        best = min(range(validations.first, len(bits)), key=lambda i: validations[i][1])
        lines += [f"best validation  {bits[best]}", f"last validation  {bits[-1]}"]
    if run.trainer.fast_dev_run:
        return f"fast_dev_run: {run.task.global_step} windows trained; nothing was saved"
    if stopped := run.task.stopped or stop_reason(run.trainer):
        lines.append(f"stopped          {stopped}")
    if run.job.in_sweep:
        return "\n".join(lines)
    here = run.job.cwd
    where = shell_path(run.job.folder, here)
    files = list((run.job.folder / "checkpoints").glob("*.ckpt"))
    saved = [file.stem for file in sorted(files, key=lambda file: file.stat().st_mtime)]
    if not saved:
        lines += [f"run              {relative_path(run.job.folder, here)}",
                  "no checkpoint was saved: callbacks.checkpoint does that"]  # fmt: skip
        return "\n".join([*lines, *curves(run.trainer.loggers, run.job)])
    # That of the untrained model is no best.
    name = "best" if "best" in saved and len(bits) > 1 else "last"
    name = name if name in saved else saved[-1]  # of a ModelCheckpoint
    allowed = "".join(f" {shell_quote(a)}" for a in run.job.allow_targets)
    of_model = "" if run.config.model._target_.startswith("charrnn.") else allowed
    program, file = run.job.program, f"{where}/checkpoints/{name}.ckpt"
    if program.is_python:
        lines.append(f"run              {relative_path(run.job.folder, here)}")
        return "\n".join([*lines, *curves(run.trainer.loggers, run.job)])
    lines += [
        f"run              {relative_path(run.job.folder, here)}",
        f"sample from it   {program.sample} checkpoint={file}{of_model}",
    ]
    start = where if "last" in saved else file
    if "last" in saved or "optimizer_states" in checkpoint.read(
        run.job.folder / "checkpoints" / f"{name}.ckpt"
    ):
        lines.append(f"go on            {program.train} resume={start} {next_limit(run)}{allowed}")
    return "\n".join([*lines, *curves(run.trainer.loggers, run.job)])


def is_spent(timer) -> bool:
    """Whether a Timer's time is over; one without a duration only measures."""
    left = timer.time_remaining()
    return left is not None and left <= 0


def next_limit(run: Run) -> str:
    """The setting with which the run, resumed, goes on for as long again."""
    trainer, task = run.trainer, run.task
    timer = next((c for c in trainer.callbacks if type(c).__name__ == "Timer"), None)
    if timer and is_spent(timer):
        seconds = round(2 * (timer.time_elapsed() + timer.time_remaining()))
        days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
        return f"trainer.max_time={days:02}:{hours:02}:{minutes:02}:{seconds % 60:02}"
    if task.max_characters:
        return f"task.max_characters={2 * task.max_characters}"
    if trainer.max_steps > 0:
        return f"trainer.max_steps={2 * trainer.max_steps}"
    return f"trainer.max_epochs={2 * max(1, task.rounds)}"


def test_line(run: Run, windows, device) -> str:
    """The loss of the best checkpoint on the test part."""
    folder = run.job.folder / "checkpoints"
    best, last = (folder / f"{name}.ckpt" for name in ("best", "last"))
    file = next((file for file in (best, last) if file.exists()), None)
    if file is None:  # nothing was saved
        model, name = run.task.model.eval(), "the last model"
    else:
        saved = checkpoint.read(file)
        model, name = checkpoint.build_model(saved, list(run.config.allow_targets))[0], file.name
    nats = evaluate(model.to(device), windows).nats
    return f"test             {nats:.4f} nats, {nats / math.log(2):.4f} bpc ({name})"
