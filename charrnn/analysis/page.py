"""The neurons page: what every unit does at every character of a text, in one HTML file.

T characters, L layers, H hidden size.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from charrnn import checkpoint
from charrnn.analysis.activations import compute_activations, compute_signals
from charrnn.analysis.page_data import page_data
from charrnn.analysis.template import fill_page
from charrnn.data.charset import Charset
from charrnn.data.decode import decode
from charrnn.data.files import find_files, read_bytes, user_path
from charrnn.errors import InputError, check, escape_control
from charrnn.models import contract

TEMPLATE = Path(__file__).with_name("page.html")
MAX_ACTIVATIONS = 150_000_000
"""Maximum number of activations of a page, one byte each, that a browser still opens at once."""
MAX_WITH_GATES = 20_000_000
"""Maximum number of activations beside which a page has the gates too, twice as many values."""


def write_page(
    path: str | Path,
    text: str | Path,
    out: str | Path | None = None,
    length: int = 10_000,
    allow_targets: Sequence[str] = (),
    other: str | Path | None = None,
) -> Path:
    """Write the page of a checkpoint along the beginning of a text, atomically.

    Args:
        path: a checkpoint, or a run's folder.
        text: a text file, in UTF-8 or with a byte order mark.
        out: the page to write; None puts it beside the checkpoint.
        length: number of characters to read (bytes with unit="byte").
        allow_targets: as in :func:`charrnn.load`.
        other: a second checkpoint, whose units are shown beside those of the first.

    Returns:
        The file of the page.

    Raises:
        InputError: there is no checkpoint or no text, or the page would be too large.
        OSError: the page cannot be written.
    """
    check("length", length, length >= 1, "a whole number, at least 1")
    file = checkpoint.find_checkpoint(path)
    model, charset = checkpoint.build_model(checkpoint.read(file), allow_targets)
    text = user_path(text)
    characters = read_beginning(text, charset, length)
    name, second = name_of_run(file), None
    if other is not None:
        other = checkpoint.find_checkpoint(other)
        names = name, name_of_run(other)
        if names[0] == names[1]:  # two checkpoints of a run
            names = tuple(f"{name}/{each.stem}" for each in (file, other))
        name = names[0]
        second = *checkpoint.build_model(checkpoint.read(other), allow_targets), names[1]
    out = file.with_suffix(".html") if out is None else user_path(out)
    if out.exists() and any(out.samefile(f) for f in (file, text, *([other] if other else []))):
        raise InputError(f"--out {out}: is what the page is made from; give another file")
    with checkpoint.atomic_write(out, "w") as f:
        f.write(render_page(model, charset, characters, name, text.name, second))
    return out


def name_of_run(file: Path) -> str:
    """Name a checkpoint by its run's folder, or by its file where it lies elsewhere."""
    return file.parent.parent.name if file.parent.name == "checkpoints" else file.name


def read_beginning(file: Path, charset: Charset, length: int) -> str | bytes:
    """Read the first characters of a file, or bytes where the model reads bytes."""
    if file.is_dir():
        raise InputError(f"--text {file}: is a folder; give a file")
    files, size = find_files(file, "--text"), 4 * length  # no character has more bytes
    if charset.unit == "byte":
        data = b"".join(read_bytes(files, length))
    else:
        data = "".join(text for _, text in decode(files, size))[:length]
    if not data:
        raise InputError(f"--text {file}: the file is empty; give one with a text")
    return data


def render_page(
    model: nn.Module,
    charset: Charset,
    text: str | bytes,
    name: str,
    text_name: str,
    other: tuple[nn.Module, Charset, str] | None = None,
) -> str:
    """Render the page, which needs no other file and no network.

    Args:
        name, text_name: of the model and of the text, for the title.
        other: a second model, its charset and its name, beside the first.

    Raises:
        InputError: there are more values than ``MAX_ACTIVATIONS``, or the models read the text
            differently.
    """
    shown = [(model, charset, name)] + [other] * (other is not None)
    sizes = [units_of(each, its_charset) for each, its_charset, _ in shown]
    if sum(sizes) * len(text) > MAX_ACTIVATIONS:
        raise InputError(
            f"--length: {len(text):,} characters and {sum(sizes):,} units make a page too large to"
            f" open; give at most --length {MAX_ACTIVATIONS // sum(sizes)}"
        )
    units = {its_charset.unit for _, its_charset, _ in shown}
    if len(units) > 1 or len({its_charset.preprocess(text) for _, its_charset, _ in shown}) > 1:
        raise InputError("--with: that model reads the text differently (unit, case, newlines)")
    with_gates = sum(sizes) * len(text) <= MAX_WITH_GATES
    models, elements = [], []
    for number, (each, its_charset, its_name) in enumerate(shown):
        signals, scale = signals_of(each, its_charset, text, with_gates)
        data = page_data(each, its_charset, text, signals["activation"])
        data |= {"name": escape_control(its_name), "scale": scale, "signals": [*signals]}
        data["unitName"] = data.pop("unit")
        models.append(data)
        for signal, values in signals.items():
            factor = np.float32(127 / (scale if signal == "activation" else 1))
            scaled = np.rint(values * factor).astype(np.int8)
            encoded = base64.b64encode(scaled.tobytes()).decode()
            kind = f'type="application/octet-stream" id="{signal}-{number}"'
            elements.append(f"<script {kind}>{encoded}</script>")
    names = " and ".join(its_name for _, _, its_name in shown)
    title = escape_control(f"Neurons of {names} along {text_name}")
    scripts = (TEMPLATE.with_name("marks.js"), TEMPLATE.with_name("page.js"))
    data = {"title": title, "models": models}
    return fill_page(TEMPLATE, title, scripts, data=data, signals="\n".join(elements))


def units_of(model: nn.Module, charset: Charset) -> int:
    """Return the number of units of all layers."""
    layers, hidden, _ = compute_activations(model, charset, "").shape
    return layers * hidden


def signals_of(
    model: nn.Module, charset: Charset, text: str | bytes, with_gates: bool
) -> tuple[dict[str, np.ndarray], float]:
    """Return the signals (L, H, T) of all units by name, and the scale of the activations.

    Those of a GRU are between -1 and 1: a new state is a mean of the last one and a tanh. Others
    are scaled, and the page's values with them.
    """
    with_gates = with_gates and contract.method(model, "gates") is not None
    parts = compute_signals(model, charset, text, with_gates)
    if not all(np.isfinite(part).all() for part in parts):
        raise InputError(
            "the model's activations along this text are not finite; take an earlier checkpoint"
        )
    largest = max(float(parts[0].max()), -float(parts[0].min()))
    return dict(zip(("activation", "reset", "update"), parts)), max(1.0, largest)
