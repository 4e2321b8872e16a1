"""charrnn evaluate: how well a model predicts a text; nothing is written but the file asked for."""

import sys
from pathlib import Path

from omegaconf import OmegaConf

from charrnn.cli import hydra_internals
from charrnn.cli.arguments import Command
from charrnn.cli.effects import EVALUATE, without_effect
from charrnn.cli.hydra_internals import without_hydra
from charrnn.cli.keys import CONF, nearest
from charrnn.cli.schema import check_call, check_type
from charrnn.data.files import user_path
from charrnn.errors import InputError, check
from charrnn.gru import build


def main(command: Command) -> None:
    """Print the figures of a checkpoint. Errors of input are raised."""
    options, overrides = command.options, list(command.overrides)
    with hydra_internals.application("evaluate", CONF, "evaluate", None, options.config_dir) as app:
        if app.show(options, overrides, command.program.in_text):
            return
        config = without_hydra(app.compose(overrides, multirun=False))
        build.begin()  # while torch is imported
        evaluate(OmegaConf.to_container(config, resolve=True), command)


def evaluate(settings: dict, command: Command) -> None:
    """Check the settings, evaluate, print the table and write the JSON file."""
    for group in ("evaluate", "data"):
        check(group, settings[group], isinstance(settings[group], dict), "a group of keys")
    idle = without_effect(command.overrides, settings, EVALUATE)
    asked, path = settings.pop("evaluate"), settings.pop("checkpoint")
    data = {key: value for key, value in settings.pop("data").items() if value is not None}
    check_type("checkpoint", path, str | list[str])
    check_type("allow_targets", allowed := settings.pop("allow_targets"), list[str])
    for key in settings:
        known = ["checkpoint", "data", "allow_targets", *(f"evaluate.{name}" for name in asked)]
        raise InputError(f"{key}: nothing reads this key{nearest(key, known)}")

    from charrnn.cli.folders import newest_run
    from charrnn.data.datamodule import CharDataModule
    from charrnn.evaluation import build_report, format_report, write_report
    from charrnn.runs import find_checkpoints

    check_type("evaluate.output", output := asked.pop("output"), str | None)
    check_call(build_report, asked, "evaluate.")
    check_call(CharDataModule, data, "data.")
    file: Path | None = None if output is None else user_path(output)
    if file is None and sys.stdout is None:
        raise InputError("standard output is closed, and evaluate.output names no file")
    if file is not None and not file.parent.is_dir():
        raise InputError(f"evaluate.output={output}: there is no such folder; make it first")
    if file is not None and (not file.name or (file.exists() and not file.is_file())):
        raise InputError(f"evaluate.output={output}: names no file; give one, or null")
    for line in idle:
        print(line, file=sys.stderr)
    files = find_checkpoints(newest_run(command.program) if path == "latest" else path)
    result = build_report(files, data, allow_targets=allowed, **asked)
    print(format_report(result))
    if file is not None:
        write_report(result, file)
