"""Checkpoints: plain containers and tensors, read without running code."""

import contextlib
import json
import math
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from charrnn import models
from charrnn.checkpoint import serialization
from charrnn.checkpoint.serialization import Damaged, checksum
from charrnn.data.charset import Charset
from charrnn.errors import InputError, escape_control, format_value
from charrnn.models.ensemble import Ensemble

FORMAT = 1  # of the dictionary under the key "charrnn"
PREFIX = "model."  # of the model's parameters among the task's
METADATA = "charrnn"  # where an exported file keeps settings and alphabet, as JSON
MOVED = {
    "charrnn.datamodule.": "charrnn.data.datamodule.",
    "charrnn.schedulers.": "charrnn.training.schedulers.",
    "charrnn.task.": "charrnn.training.task.",
}
"""Where classes that settings name as ``_target_`` lay before, and where they lie."""


def find(path: str | Path) -> Path:
    """The checkpoint file that a path names: itself, or a run folder's last one.

    Raises InputError where there is none.
    """
    path = Path(path).expanduser()
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{path}: no checkpoint there; give a run's folder or a file of its checkpoints/"
        )
    return file


def last(run: Path) -> Path:
    """A run's last checkpoint, or where that is damaged, the newest that is whole.

    A line on standard error says that it is another one. Raises InputError where none is whole.
    """
    file = run / "checkpoints" / "last.ckpt"
    try:
        read(file)
        return file
    except InputError as error:
        if file.exists() and not isinstance(error, Damaged):
            raise
        reason = str(error).partition("; ")[0]
    try:
        file, windows = newest(run)
    except InputError as error:
        raise Damaged(f"{reason}, and {error}; start it anew") from error
    print(f"{escape_control(reason)}: going on from {file.name}, window {windows}", file=sys.stderr)
    return file


def newest(run: Path, windows: float = math.inf) -> tuple[Path, int]:
    """A run's newest whole checkpoint after so many windows or fewer, and its windows.

    Raises InputError where there is none.
    """
    found = {}
    for file in sorted((run / "checkpoints").glob("*.ckpt")):
        with contextlib.suppress(InputError):
            found[file] = read(file)["charrnn"].get("windows", 0)
    found = {file: number for file, number in found.items() if number <= windows}
    if not found:
        raise InputError("no other checkpoint of this run is whole")
    file = max(found, key=found.get)
    return file, found[file]


def read(path: str | Path) -> dict:
    """A checkpoint's dictionary, on the CPU. Reading it runs no code in it.

    Raises InputError for a file that is missing, damaged, of another program or another version.
    """
    file = find(path)
    try:
        open(file, "rb").close()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    checkpoint = read_weights(file) if file.suffix == ".safetensors" else serialization.load(file)
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
    ours["settings"] = with_moved_targets(ours["settings"])
    return checkpoint


def with_moved_targets(settings):
    """Settings of an earlier version, with the ``_target_`` that their classes have now."""
    if isinstance(settings, list):
        return [with_moved_targets(part) for part in settings]
    if not isinstance(settings, dict):
        return settings
    settings = {key: with_moved_targets(part) for key, part in settings.items()}
    target = settings.get("_target_")
    for before, now in MOVED.items():
        if isinstance(target, str) and target.startswith(before):
            settings["_target_"] = now + target.removeprefix(before)
    return settings


def read_weights(file: Path) -> dict:
    """What ``charrnn.export.formats`` wrote as safetensors, as a checkpoint with nothing but a model.

    Raises InputError for a file that is damaged or of another program.
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


def build(checkpoint: dict) -> tuple[nn.Module, Charset]:
    """The model, in evaluation mode, and the charset of a checkpoint's dictionary.

    Raises InputError where its parts do not fit one another.
    """
    with fitting():
        return _build(checkpoint)


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Make an InputError of what goes wrong with a file of ours that somebody has changed."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        raise InputError(
            "the checkpoint's settings, alphabet and weights do not fit one another; give another"
        ) from error


def read_charset(path: str | Path, reading: dict) -> Charset:
    """The alphabet of a checkpoint or a run's folder.

    Raises InputError where its text was read in another way than ``reading`` says (the arguments
    of :class:`charrnn.Charset` besides the characters).
    """
    charset = Charset(**read(path)["charrnn"]["charset"])
    for key, value in charset.reading.items():
        if value != reading[key]:
            raise InputError(
                f"data.charset={path}: its text was read with {key}={format_value(value)}, here it is"
                f" {format_value(reading[key])}; give that in data too"
            )
    return charset


def holds_charset(path: str | Path) -> bool:
    """Whether a path names a checkpoint or a run's folder, and not a text file."""
    file = Path(path).expanduser()
    named = file.suffix in (".ckpt", ".safetensors") and file.exists()
    return file.is_dir() or named or (file.is_file() and zipfile.is_zipfile(file))


def build_all(files: list[Path], saved: list[dict]) -> tuple[nn.Module, Charset]:
    """What :func:`build` makes of one checkpoint, or an ensemble of several with one alphabet.

    Raises InputError, which names the file where there are several.
    """
    if len(files) == 1:
        return build(saved[0])
    members, charset = [], None
    for file, one in zip(files, saved):
        try:
            member, theirs = build(one)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        charset = charset or theirs
        if theirs.state_dict() != charset.state_dict():
            raise InputError(
                f"{file}: of another alphabet than {files[0]}; models that predict together have"
                " the same"
            )
        members.append(member)
    return Ensemble(members).eval(), charset


def _build(checkpoint: dict) -> tuple[nn.Module, Charset]:
    ours = checkpoint["charrnn"]
    charset = Charset(**ours["charset"])
    settings = dict(ours["settings"]["model"])
    package, _, name = settings.pop("_target_").rpartition(".")
    kind = getattr(models, name, None)
    if package != models.__name__ or not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"model: {package}.{name} is no model of {models.__name__}")
    with torch.random.fork_rng(devices=[]):  # a person's random numbers are not ours to draw
        model = kind(len(charset), **settings)
    model.load_state_dict(parameters(checkpoint))
    model.boundary = charset.boundary
    return model.eval(), charset


def parameters(checkpoint: dict) -> dict[str, Tensor]:
    """The model's parameters, under the model's own names."""
    state = checkpoint["state_dict"]
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def initialize(model: nn.Module, charset: Charset, path: str | Path) -> int:
    """Take over a checkpoint's weights, rows of the vocabulary by their characters.

    Characters that the checkpoint does not know keep the weights that they have. The model may be
    of a larger or smaller vocabulary, but of no other size, and of the same kind.

    Returns:
        How many of the charset's characters were taken over.

    Raises:
        InputError: names the parameter that does not fit.
    """
    with fitting():
        return _initialize(model, charset, path)


def _initialize(model: nn.Module, charset: Charset, path: str | Path) -> int:
    checkpoint = read(path)
    theirs = Charset(**checkpoint["charrnn"]["charset"])
    if theirs.unit != charset.unit:
        raise InputError(f"init_from={path}: of data.unit={theirs.unit}, here {charset.unit}")
    old, new = parameters(checkpoint), model.state_dict()
    if old.keys() != new.keys():
        odd = sorted(old.keys() ^ new.keys())[0]
        raise InputError(f"init_from={path}: a model of another kind or depth ({odd})")
    ours = {character: i for i, character in enumerate(charset.alphabet, 1)}
    pairs = [(0, 0)] + [(ours[c], i) for i, c in enumerate(theirs.alphabet, 1) if c in ours]
    here, there = torch.tensor(pairs).t()
    for name, value in new.items():
        if (axis := model.BY_CHARACTER.get(name)) is not None:
            rows = old[name].index_select(axis, there)
            if rows.numel() * value.size(axis) == value.numel() * rows.size(axis):
                old[name] = value.clone().index_copy_(axis, here, rows)
        if old[name].shape != value.shape:
            raise InputError(
                f"init_from={path}: {name} is {tuple(old[name].shape)} there and"
                f" {tuple(value.shape)} here; the sizes of the model must be the same"
            )
    model.load_state_dict(old)
    return len(pairs) - 1
