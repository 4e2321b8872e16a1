"""The format of a checkpoint: a dictionary of plain containers and tensors, and its reader."""

import json
from pathlib import Path

from charrnn.checkpoint import serialization
from charrnn.checkpoint.find import find_checkpoint
from charrnn.checkpoint.serialization import Damaged, checksum
from charrnn.errors import InputError

FORMAT = 1
"""Version of the dictionary under the key "charrnn"."""
PREFIX = "model."
"""Prefix of the model's parameters in the task's state dict."""
METADATA = "charrnn"
"""Metadata key under which an exported file keeps settings and charset, as JSON."""
MOVED = {
    "charrnn.datamodule.": "charrnn.data.datamodule.",
    "charrnn.schedulers.": "charrnn.training.schedulers.",
    "charrnn.task.": "charrnn.training.task.",
}
"""Old and new prefixes of the classes that settings name as ``_target_``."""
REMOVED = ("charrnn.callbacks.MedianStopping", "charrnn.callbacks.StopWorse")
"""Callbacks of earlier versions; the sweeper prunes now."""
DATA = "charrnn.data.datamodule.CharDataModule"
READ_BEFORE = {"newlines": "keep", "encoding": "utf-8", "library": "all"}
"""How :data:`DATA` read text before it had these settings."""


def read(path: str | Path) -> dict:
    """Read a checkpoint onto the CPU, without running code from it.

    Args:
        path: a checkpoint, a safetensors file of :mod:`charrnn.export`, or a run's folder.

    Returns:
        The dictionary. Under the key "charrnn" are at least ``format``, ``settings`` and
        ``charset``, under "state_dict" the parameters, prefixed with ``PREFIX``.

    Raises:
        InputError: the file is missing or unreadable, of another program, or of another version.
        Damaged: the file's content is not what was written.
    """
    file = find_checkpoint(path)
    try:
        open(file, "rb").close()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    if file.suffix == ".safetensors":
        checkpoint = read_safetensors(file)
    else:
        checkpoint = serialization.load(file)
    ours = checkpoint.get("charrnn") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or "format" not in ours:
        raise InputError(f"{file}: a checkpoint of another program, not of charrnn")
    if not (type(ours["format"]) is int and ours["format"] == FORMAT):
        raise InputError(
            f"{file}: written by charrnn {ours.get('version')} in format {ours['format']};"
            f" this version reads format {FORMAT}: use the one that wrote it"
        )
    if {"settings", "charset"} - ours.keys() or "state_dict" not in checkpoint:
        raise InputError(f"{file}: lacks parts of a checkpoint; give another one")
    ours["settings"] = update_settings(ours["settings"])
    return checkpoint


def update_settings(settings):
    """Return the settings of an earlier version in the form of this one, recursively.

    Each ``_target_`` becomes the current path, and text is read as it was.
    """
    if isinstance(settings, list):
        return [update_settings(part) for part in settings]
    if not isinstance(settings, dict):
        return settings
    settings = {key: update_settings(part) for key, part in settings.items()}
    target = settings.get("_target_")
    if target in REMOVED:
        return None
    for before, now in MOVED.items():
        if isinstance(target, str) and target.startswith(before):
            settings["_target_"] = now + target.removeprefix(before)
    return READ_BEFORE | settings if settings.get("_target_") == DATA else settings


def read_safetensors(file: Path) -> dict:
    """Read a file of :mod:`charrnn.export.safetensors` as a checkpoint with only a model.

    Raises:
        InputError: safetensors is not installed.
        Damaged: the file's content is not what was written.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(f'{file}: to read it, pip install "charrnn[export]"') from error
    try:
        with safe_open(file, "pt") as f:
            state = {PREFIX + name: f.get_tensor(name) for name in f.keys()}
            ours = json.loads((f.metadata() or {}).get(METADATA, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"{file}: it is damaged; give another one") from error
    if isinstance(ours, dict) and ours.pop("sha256", None) != checksum(ours, state):
        raise Damaged(f"{file}: it is damaged (its checksum is wrong); give another one")
    return {"charrnn": ours, "state_dict": state}
