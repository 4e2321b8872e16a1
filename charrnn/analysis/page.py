"""Neurons: one page that shows what every unit does at every character of a text.

python -m charrnn.analysis.page CHECKPOINT --text FILE [--out FILE.html] [--length N]

T characters, L layers, H hidden size, N = L H units, V vocabulary size.
"""

import argparse
import base64
import hashlib
import html
import json
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from charrnn import checkpoint
from charrnn.analysis import activations
from charrnn.analysis.properties import correlations, properties
from charrnn.checkpoint.files import atomic_write
from charrnn.data.charset import UNKNOWN, Charset
from charrnn.errors import InputError, check, escape_control

TEMPLATE = Path(__file__).with_name("page.html")
LARGEST = 150_000_000
"""The most activations of a page, a byte each: what a browser still opens at once."""
LIKELIEST = 5


def main(arguments: list[str] | None = None) -> None:
    """Write a page as the command line says."""
    parser = argparse.ArgumentParser(
        "python -m charrnn.analysis.page",
        description="Show what each unit of a model does along a text.",
    )
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("--text", required=True, help="the text to read (UTF-8)")
    parser.add_argument("--out", help="the page to write; beside the checkpoint where not given")
    parser.add_argument("--length", type=int, default=10_000, help="characters of the text to read")
    given = parser.parse_args(arguments)
    try:
        out = neurons(given.checkpoint, given.text, given.out, given.length)
        print(escape_control(str(out)))
    except (InputError, OSError) as error:
        line = " ".join(str(error).split())
        print(f"error: {escape_control(line)}", file=sys.stderr)
        sys.exit(2)


def neurons(
    path: str | Path, text: str | Path, out: str | Path | None = None, length: int = 10_000
) -> Path:
    """Write the page of a checkpoint and the beginning of a text, whole or not at all.

    Args:
        text: a file, whose first ``length`` characters are read (bytes, with unit="byte").
        out: the page; None puts it beside the checkpoint.

    Returns:
        The page's file.

    Raises:
        InputError: no checkpoint of ours, no text, or more than a page holds.
        OSError: the page cannot be written.
    """
    check("length", length, length >= 1, "a whole number, at least 1")
    file = checkpoint.find_checkpoint(path)
    model, charset = checkpoint.build_model(checkpoint.read(file))
    characters = beginning(Path(text), charset, length)
    run = file.parent.parent.name if file.parent.name == "checkpoints" else file.name
    out = file.with_suffix(".html") if out is None else Path(out)
    if out.exists() and any(out.samefile(f) for f in (file, text)):
        raise InputError(f"--out {out}: is what the page is made from; give another file")
    with atomic_write(out, "w") as f:
        f.write(page(model, charset, characters, run, Path(text).name))
    return out


def beginning(file: Path, charset: Charset, length: int) -> str | bytes:
    """The first characters of a file, or bytes where the model reads those."""
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


def page(model: nn.Module, charset: Charset, text: str | bytes, name: str, text_name: str) -> str:
    """The whole page, which needs no other file and no network.

    Raises InputError where the activations are more than ``LARGEST``.
    """
    units = model.gru.num_layers * model.gru.hidden_size
    if units * len(text) > LARGEST:
        raise InputError(
            f"--length: {len(text):,} characters and {units:,} units make a page too large to open;"
            f" give at most --length {LARGEST // units}"
        )
    found = activations.activations(model, charset, text)
    title = escape_control(f"Neurons of {name} along {text_name}")
    data = describe(model, charset, text, found) | {"title": title}
    # Every activation is between -1 and 1: each new state is a mean of the last and a tanh.
    small = np.rint(found * 127).astype(np.int8).tobytes()
    template = TEMPLATE.read_text("utf-8")
    script = re.search("<script>(.*?)</script>", template, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "data": as_json(data),
        "activations": base64.b64encode(small).decode(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def describe(model: nn.Module, charset: Charset, text: str | bytes, found: np.ndarray) -> dict:
    """What the page says besides the activations found, (L, H, T), as containers of JSON."""
    indices = charset.encode(text).astype(np.int64)
    characters = charset.preprocess(text)
    layers, hidden, length = found.shape
    flat = found.reshape(layers * hidden, length)
    in_bytes = charset.unit == "byte"
    # Bytes beyond ASCII are parts of letters more often than of anything else.
    known = properties(re.sub("[\x80-\xff]", "a", characters) if in_bytes else characters)
    strengths = correlations(flat, np.stack([*known.values()]))
    measures = [
        {"name": name, "mean": round(values.mean(), 4), "strengths": rounded(column, 3)}
        for (name, values), column in zip(known.items(), strengths.T)
    ]
    measures.append({"name": "standard deviation", "strengths": rounded(flat.std(1), 3)})
    likeliest, chances, actual = predictions(model, found[-1], indices)
    used, places = np.unique(likeliest, return_inverse=True)
    return {
        "kind": type(model).__name__,
        "layers": layers,
        "hidden": hidden,
        "parameters": sum(p.numel() for p in model.parameters()),
        "unit": "bytes" if in_bytes else "characters",
        "characters": labels(charset, indices, characters),
        "unknown": np.flatnonzero(indices == 0).tolist(),
        "measures": measures,
        "labels": [label(charset, index) for index in used.tolist()],
        "likeliest": places.reshape(likeliest.shape).tolist(),
        "chances": [rounded(row, 4) for row in chances],
        "actual": rounded(actual, 6),
    }


@torch.inference_mode()
def predictions(model: nn.Module, outputs: np.ndarray, indices: np.ndarray) -> tuple:
    """What the model expects after each character.

    Args:
        outputs: of the last layer, (H, T).
        indices: of the text, (T,).

    Returns:
        The likeliest next characters (T, K) and their probabilities (T, K), the likeliest first,
        and the probability of the one that came, (T - 1,).
    """
    weight = model.decoder.weight
    likeliest, chances, actual = [], [], []
    targets = torch.from_numpy(np.append(indices[1:], 0)).to(weight.device)
    # A piece at a time, for (T, V) may not fit.
    for part, target in zip(torch.from_numpy(outputs.T).split(1000), targets.split(1000)):
        p = model.decoder(part.to(weight)).softmax(1)
        top = p.topk(min(LIKELIEST, p.size(1)))
        likeliest.append(top.indices.cpu())
        chances.append(top.values.cpu())
        actual.append(p.gather(1, target[:, None])[:, 0].cpu())
    likeliest, chances, actual = (torch.cat(x).numpy() for x in (likeliest, chances, actual))
    return likeliest, chances, actual[:-1]


def labels(charset: Charset, indices: np.ndarray, characters: str) -> list[str]:
    """What is shown at each place: its character; of bytes, each with what it completes."""
    if charset.unit == "char":
        return [visible_character(c) for c in characters]
    shown, decoder = [], charset.decoder()
    for index, byte in zip(indices, characters):
        completed = decoder(index) if index else byte if byte < "\x80" else ""
        shown.append(visible_character(completed[-1]) if completed else f"\\x{ord(byte):02x}")
    return shown


def label(charset: Charset, index: int) -> str:
    """What is shown of a character, or a byte, that stands alone."""
    character = (UNKNOWN + charset.alphabet)[index]
    if charset.unit == "byte" and index and character >= "\x80":
        return f"\\x{ord(character):02x}"
    return visible_character(character)


def visible_character(character: str) -> str:
    r"""A character that shows and changes nothing around it: others become \x1b, \u202e and so on.

    Tab and newline pass, for the page to show.
    """
    if character in "\t\n" or character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def rounded(values: np.ndarray, digits: int) -> list[float]:
    """Numbers for JSON, with so many digits after the point."""
    return np.round(values.astype(np.float64), digits).tolist()


def as_json(value: object) -> str:
    """JSON that may stand in a script element: ASCII, and no tag or comment begins in it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


if __name__ == "__main__":
    main()
