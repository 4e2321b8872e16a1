"""about.yaml: what is needed to reproduce a run: versions, source, command and machine."""

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


def write_provenance(run: Path, **more) -> None:
    """Write ``RUN/.hydra/about.yaml`` atomically; an existing file stays as it is.

    Args:
        run: the run's folder.
        more: further entries.
    """
    file = run / ".hydra" / "about.yaml"
    if file.exists():
        return
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file, "w") as f:
        yaml.safe_dump(collect_provenance() | more, f, sort_keys=False)


def collect_provenance() -> dict:
    """Return versions, the git commit of the source, the command, and the machine.

    ``dirty`` is whether the source differs from its commit; it and ``commit`` are None outside a
    git checkout.
    """
    import torch

    status = _git("status", "--porcelain")
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "charrnn": __version__,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str | None:
    """Run git in the source's folder; None without git or outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
