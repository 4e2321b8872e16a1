"""Runs of the train command inside the test's process, without composing their settings again.

``settings(folder)`` composes those of a small run once; ``trained(config, folder, **changes)``
trains with some of them changed, by dotted key.
"""

import copy
from pathlib import Path

from helpers import TEXT, TINY
from omegaconf import OmegaConf, open_dict

from charrnn.cli import hydra_internals
from charrnn.cli.arguments import Program, parse
from charrnn.cli.fit import fit
from charrnn.cli.keys import CONF
from charrnn.cli.prepare import Job, prepare
from charrnn.cli.train import without_hydra

WINDOWS = 6
"""Windows of a round, of which there is one."""


def settings(folder: Path, *overrides: str):
    """The configuration of a run of 6 windows, validated before and after it."""
    (folder / "text.txt").write_text(TEXT, "utf-8")
    given = [f"data.path={folder / 'text.txt'}", *TINY, "trainer.max_epochs=1", "logger=none"]
    given += [f"trainer.limit_train_batches={WINDOWS}", "trainer.log_every_n_steps=2"]
    given += ["callbacks.samples=null", "data.valid_size=200", *overrides]
    return without_hydra(composed(given))


def composed(given: list[str], is_sweep: bool | None = None):
    """The configuration of a train command's arguments, with that of Hydra below ``hydra``."""
    command = parse("train", given, Program(), {})
    with hydra_internals.application(
        "train", CONF, command.config_name, command.config, None, has_logs=False
    ) as app:
        return app.compose(list(command.overrides), is_sweep)


def trained(config, folder: Path, changes: dict | None = None):
    """Train with changes by dotted key; returns the :class:`charrnn.cli.prepare.Run`."""
    config = copy.deepcopy(config)
    with open_dict(config):
        for key, value in (changes or {}).items():
            OmegaConf.update(config, key, value, force_add=True)
    run = prepare(config, Job(folder))
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    fit(run)
    return run
