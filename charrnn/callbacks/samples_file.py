"""samples.jsonl: the samples of a run, a JSON object with ``window`` and ``text`` on each line."""

import contextlib
import json
import os
from pathlib import Path

from charrnn.checkpoint.files import atomic_write

NAME = "samples.jsonl"


def append_sample(folder: Path, window: int, text: str) -> None:
    """Append a sample to the file of a run's folder.

    Raises:
        OSError: it cannot be written; the file is as before.
    """
    file = folder / NAME
    size = file.stat().st_size if file.exists() else 0
    try:
        with open(file, "a", encoding="ascii") as f:
            f.write(json.dumps({"window": window, "text": text}) + "\n")
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(file, size)
        raise


def read_samples(folder: Path) -> list[dict]:
    """Read the samples of a run's folder; without a last line that a kill cut short."""
    samples = []
    with contextlib.suppress(OSError), open(folder / NAME, encoding="ascii", errors="replace") as f:
        for line in f:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                sample = json.loads(line)
                samples.append({"window": int(sample["window"]), "text": str(sample["text"])})
    return samples


def rewind_samples(folder: Path, windows: int) -> None:
    """Remove the samples after a window. Atomic."""
    if (folder / NAME).exists():
        kept = [sample for sample in read_samples(folder) if sample["window"] <= windows]
        with atomic_write(folder / NAME, "w", encoding="ascii") as f:
            f.writelines(json.dumps(sample) + "\n" for sample in kept)
