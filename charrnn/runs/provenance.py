"""What a run was made from: versions, source, text and machine, for who wants to repeat it."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import yaml

from charrnn import __version__
from charrnn.checkpoint.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy")


def write(run: Path, **more) -> None:
    """Write ``.hydra/about.yaml``, whole or not at all; one that is there stays as it is."""
    file = run / ".hydra" / "about.yaml"
    if file.exists():
        return
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file, "w") as f:
        f.write(yaml.safe_dump(describe() | more, sort_keys=False))


def describe() -> dict:
    """Versions, the source's git commit and whether it was changed since, command and machine."""
    import torch

    status = git("status", "--porcelain")
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "charrnn": __version__,
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def git(*arguments: str) -> str | None:
    """What git says of the source's folder; None where that is no working tree, or git lacks."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
