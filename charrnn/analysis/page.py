"""The neurons page: what every unit does at every character of a text, in one HTML file.

T characters, L layers, H hidden size.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from charrnn import checkpoint
from charrnn.analysis.activations import compute_activations
from charrnn.analysis.page_data import page_data
from charrnn.analysis.template import fill_page
from charrnn.data.charset import Charset
from charrnn.errors import InputError, check, escape_control

TEMPLATE = Path(__file__).with_name("page.html")
MAX_ACTIVATIONS = 150_000_000
"""Maximum number of activations of a page, one byte each, that a browser still opens at once."""


def write_page(
    path: str | Path,
    text: str | Path,
    out: str | Path | None = None,
    length: int = 10_000,
    allow_targets: Sequence[str] = (),
) -> Path:
    """Write the page of a checkpoint along the beginning of a text, atomically.

    Args:
        path: a checkpoint, or a run's folder.
        text: a text file (UTF-8).
        out: the page to write; None puts it beside the checkpoint.
        length: number of characters to read (bytes with unit="byte").
        allow_targets: as in :func:`charrnn.load`.

    Returns:
        The file of the page.

    Raises:
        InputError: there is no checkpoint or no text, or the page would be too large.
        OSError: the page cannot be written.
    """
    check("length", length, length >= 1, "a whole number, at least 1")
    file = checkpoint.find_checkpoint(path)
    model, charset = checkpoint.build_model(checkpoint.read(file), allow_targets)
    characters = read_beginning(Path(text), charset, length)
    run = file.parent.parent.name if file.parent.name == "checkpoints" else file.name
    out = file.with_suffix(".html") if out is None else Path(out)
    if out.exists() and any(out.samefile(f) for f in (file, text)):
        raise InputError(f"--out {out}: is what the page is made from; give another file")
    with checkpoint.atomic_write(out, "w") as f:
        f.write(render_page(model, charset, characters, run, Path(text).name))
    return out


def read_beginning(file: Path, charset: Charset, length: int) -> str | bytes:
    """Read the first characters of a file, or bytes where the model reads bytes."""
    try:
        with open(file, "rb") as f:
            data = f.read(4 * length)  # no character has more bytes
    except OSError as error:
        raise InputError(f"--text {file}: cannot be read ({error.strerror})") from error
    if not data:
        raise InputError(f"--text {file}: the file is empty; give one with a text")
    if charset.unit == "byte":
        return data[:length]
    return data.decode("utf-8", "replace")[:length]


def render_page(
    model: nn.Module, charset: Charset, text: str | bytes, name: str, text_name: str
) -> str:
    """Render the page, which needs no other file and no network.

    Args:
        name, text_name: of the model and of the text, for the title.

    Raises:
        InputError: there are more activations than ``MAX_ACTIVATIONS``.
    """
    layers, hidden, _ = compute_activations(model, charset, "").shape
    units = layers * hidden
    if units * len(text) > MAX_ACTIVATIONS:
        raise InputError(
            f"--length: {len(text):,} characters and {units:,} units make a page too large to open;"
            f" give at most --length {MAX_ACTIVATIONS // units}"
        )
    activations = compute_activations(model, charset, text)
    title = escape_control(f"Neurons of {name} along {text_name}")
    data = page_data(model, charset, text, activations) | {"title": title}
    # Those of a GRU are between -1 and 1: a new state is a mean of the last one and a tanh. Others
    # are scaled, and the page's values with them.
    scale = max(1.0, float(np.abs(activations).max()))
    data["scale"] = scale
    quantized = np.rint(activations / scale * 127).astype(np.int8).tobytes()
    activations = base64.b64encode(quantized).decode()
    return fill_page(TEMPLATE, title, data=data, activations=activations)
