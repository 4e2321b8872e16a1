"""Write text with a trained model: python sample.py [KEY=VALUE ...], or --help."""

import sys
from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from charrnn.cli import app as cli
from charrnn.cli.schema import check_call, check_type
from charrnn.errors import check, escape_control


def job(cfg: DictConfig) -> None:
    from charrnn import checkpoint, generation
    from charrnn.cli import interactive
    from charrnn.generation.decoding import Decoding
    from charrnn.runs.members import find_checkpoints

    settings = OmegaConf.to_container(cfg, resolve=True)
    path, raw, talk = (settings.pop(key) for key in ("checkpoint", "raw", "interactive"))
    scoring = {key: settings.pop(key) for key in ("score", "by")}
    check_type("checkpoint", path, str | list[str])
    check_type("raw", raw, bool)
    check_type("interactive", talk, bool)
    of_text = ("prompt", "length", "num_samples", "seed", "unknown")
    ours = {key: settings.pop(key) for key in of_text}
    check_call(generation.generate_texts, ours)
    check_call(Decoding, settings)
    settings |= {key: interactive.unescape(settings[key]) for key in ("stop", "allow")}
    alone = not talk or ours["num_samples"] == 1
    check("num_samples", ours["num_samples"], alone, "1 with interactive=true")
    alone = not talk or scoring["score"] is None
    check("interactive", talk, alone, "false with score")
    files = find_checkpoints(cli.newest_run() if path == "latest" else path)
    model, charset = checkpoint.build_models(files, [checkpoint.read(file) for file in files])
    if scoring["score"] is not None:
        return write_scores(model, charset, scoring)
    form = str if raw else escape_control
    if talk:
        return interactive.Shell(model, charset, ours, settings, form).run()
    write(generation.generate_texts(model, charset, **ours, **settings), ours["num_samples"], form)


def write_scores(model, charset, settings: dict) -> None:
    """What each character or line of a file costs, as a table."""
    from charrnn.evaluation import scoring

    check_call(scoring.table, settings)
    for line in scoring.table(model, charset, **settings):
        print(line)


def write(steps, num_samples: int, form: Callable[[str], str]) -> None:
    """One sample as it comes; several, which come at once, one after the other with a newline.

    Args:
        steps: what each step adds to each sample.
        form: what is done to a text before it is written.
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


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    cli.main("sample", job)
