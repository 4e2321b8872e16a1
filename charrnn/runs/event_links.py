"""TensorBoard's event files of many runs, linked under the names of their runs."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from charrnn.errors import escape_control

EVENTS = ".tfevents."
"""In the name of each event file."""
FOLDER = "tensorboard"
"""Of the event files in a run's folder; it is no part of the run's name."""
LONGEST = 255
"""Bytes of a name; an escaped one may have more."""
WITHOUT_EVENTS = {"checkpoints", "wandb", "__pycache__", "node_modules"}


def link_events(folders: Sequence[Path], into: Path) -> int:
    """Link the event files below some folders, each in a folder with the name of its run.

    A run is named by its path below the folder, or by that below what several folders have in
    common; a run's own folder by its name. Called again, it adds what is new, and removes links to
    what is gone.

    Args:
        folders: of runs or sweeps, or folders of these; those that do not exist have no runs.
        into: a folder that only this function changes.

    Returns:
        The number of runs.
    """
    folders = [Path(os.path.abspath(folder)) for folder in folders]
    folders = [f.parent if f.name == FOLDER else f for f in folders]
    runs = [f for f in folders if any(is_event_file(e) for g in (f, f / FOLDER) for e in scan(g))]
    base = Path(os.path.commonpath([f.parent if f in runs else f for f in folders]))
    files: dict[Path, str] = {}
    for folder in folders:
        for found in event_folders(folder):
            parts = [part for part in found.relative_to(base).parts if part != FOLDER]
            for entry in scan(found):
                if entry.is_file(follow_symlinks=False):  # no link of this function
                    files[into.joinpath(*map(shown_name, parts), entry.name)] = entry.path
    for link, file in files.items():
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    for link in [Path(at, name) for at, _, names in os.walk(into) for name in names]:
        if link not in files:
            link.unlink()
    return len({link.parent for link in files})


def shown_name(part: str) -> str:
    """Return the name of a folder as TensorBoard shows it, which is no longer than names may be."""
    return escape_control(part).encode()[:LONGEST].decode(errors="ignore")


def event_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders that have event files, at or below one, without hidden ones."""
    for at, below, names in os.walk(folder):
        below[:] = sorted(f for f in below if f not in WITHOUT_EVENTS and not f.startswith("."))
        if any(EVENTS in name for name in names):
            yield Path(at)


def scan(folder: Path) -> list[os.DirEntry]:
    """Return what is in a folder; nothing where it cannot be read."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []


def is_event_file(entry: os.DirEntry) -> bool:
    """Whether an entry of a folder is named as an event file."""
    return EVENTS in entry.name
