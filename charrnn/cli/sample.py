"""charrnn sample: text from a trained model to standard output, and nothing else."""

import sys
from collections.abc import Callable, Iterator

from omegaconf import OmegaConf

from charrnn.cli import hydra_internals
from charrnn.cli.arguments import Command
from charrnn.cli.effects import SAMPLE, without_effect
from charrnn.cli.hydra_internals import without_hydra
from charrnn.cli.keys import CONF
from charrnn.cli.schema import check_call, check_type
from charrnn.errors import InputError, check, escape_text
from charrnn.gru import build

OF_A_TEXT = ("prompt", "length", "num_samples", "seed", "unknown")
"""Settings of a text; the others are those of decoding."""


def main(command: Command) -> None:
    """Write what the settings ask for. Errors of input are raised."""
    if sys.stdout is None:
        raise InputError("standard output is closed; there is nowhere to write the text to")
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    options, overrides = command.options, list(command.overrides)
    with hydra_internals.application("sample", CONF, "sample", None, options.config_dir) as app:
        if app.show(options, overrides, command.program.in_text):
            return
        config = without_hydra(app.compose(overrides, multirun=False))
        build.begin()  # while torch is imported
        sample(OmegaConf.to_container(config, resolve=True), command)


def sample(settings: dict, command: Command) -> None:
    """Write samples, a table of scores, or read lines at a terminal."""
    from charrnn import checkpoint
    from charrnn.cli.folders import newest_run
    from charrnn.cli.interactive import Shell, unescape
    from charrnn.evaluation import score_table
    from charrnn.generation import Decoding, generate_texts
    from charrnn.generation.device import sampling_device
    from charrnn.runs import find_checkpoints

    idle = without_effect(command.overrides, settings, SAMPLE)
    path, raw, talk = (settings.pop(key) for key in ("checkpoint", "raw", "interactive"))
    device = settings.pop("device")
    score = {key: settings.pop(key) for key in ("score", "by", "encoding")}
    check_type("allow_targets", allowed := settings.pop("allow_targets"), list[str])
    check_type("checkpoint", path, str | list[str])
    check_type("raw", raw, bool)
    check_type("interactive", talk, bool)
    check_type("device", device, str)
    of_text = {key: settings.pop(key) for key in OF_A_TEXT}
    check_call(generate_texts, of_text)
    check_call(Decoding, settings)
    settings |= {key: unescape(settings[key]) for key in ("stop", "allow")}
    of_text["prompt"] = unescape(of_text["prompt"])
    one = not talk or of_text["num_samples"] == 1
    check("num_samples", of_text["num_samples"], one, "1 with interactive=true")
    check("interactive", talk, not talk or score["score"] is None, "false with score")
    for line in idle:
        print(line, file=sys.stderr)
    files = find_checkpoints(newest_run(command.program) if path == "latest" else path)
    saved = [checkpoint.read(file) for file in files]
    model, charset = checkpoint.build_models(files, saved, allowed)
    length = of_text["length"] if not talk else 0
    model.to(sampling_device(device, model, of_text["num_samples"], length))
    if score["score"] is not None:
        data = saved[0]["charrnn"]["settings"].get("data") or {}
        score["encoding"] = score["encoding"] or data.get("encoding") or "auto"
        check_call(score_table, score)
        for line in score_table(model, charset, **score):
            print(line)
        return
    form = str if raw else escape_text
    if talk:
        return Shell(model, charset, of_text, settings, form).run()
    write(generate_texts(model, charset, **of_text, **settings), of_text["num_samples"], form)


def write(steps: Iterator[list[str]], num_samples: int, form: Callable[[str], str]) -> None:
    """Print one sample as it grows; several, which grow together, one after the other.

    Args:
        steps: what each step adds to each sample.
        form: applied to a text before it is printed.
    """
    parts = [[] for _ in range(num_samples)]
    for step in steps:
        if num_samples == 1:
            print(form(step[0]), end="", flush=True)
        for part, added in zip(parts, step):
            part.append(added)
    if num_samples > 1:
        print("\n".join(form("".join(part)) for part in parts), end="")
    if sys.stdout.isatty():
        print()
