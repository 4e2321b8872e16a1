"""Commands in what was printed, and settings that make a run of them short."""

import os
import re
import subprocess

from helpers import TINY

from charrnn.cli.main import COMMANDS

SHORT = (
    *TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=3", "data.valid_size=50",
    "callbacks.samples=null", "logger=none", "trainer.num_sanity_val_steps=0",
)  # fmt: skip
COMMAND = re.compile(
    rf"(?:python \S*(train|sample)\.py|(?:python -m )?charrnn ({'|'.join(COMMANDS)}))(?: (.*))?$"
)


def commands(text):
    """The commands in what was printed: their names, and their arguments as a shell reads them."""
    found = [match for line in text.splitlines() if (match := COMMAND.search(line))]
    return [(m[1] or m[2], words(m[3] or "")) for m in found]


def words(line):
    shown = subprocess.run(
        ["bash", "-c", rf"printf '%s\0' {line}"], capture_output=True, check=True
    )
    return [os.fsdecode(word) for word in shown.stdout.split(b"\0")[:-1]] if line else []
