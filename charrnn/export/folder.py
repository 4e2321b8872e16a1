"""A folder as model hubs expect it: safetensors, config.json, a card in Markdown, and the page."""

import json
from pathlib import Path

from torch import nn

from charrnn import checkpoint
from charrnn.data.charset import Charset
from charrnn.errors import InputError
from charrnn.export import extra, html, safetensors
from charrnn.export.card import check_license, model_card

FILES = ("model.safetensors", "config.json", "README.md", "index.html")


def write(
    model: nn.Module, description: dict, out: Path, saved: dict, bits: int, license: str
) -> str:
    """Write the files, each atomically; return a line on the page among them.

    Args:
        out: the folder, made where it is missing. What is in it must be from here.
        bits: of a weight of the page.
        license: as the card has it, an SPDX identifier in lower case.

    Raises:
        InputError: the folder has other files, the license is none, or a package is missing.
    """
    check_license(license)
    extra.import_extra("safetensors.torch")
    if out.exists() and not (out.is_dir() and {f.name for f in out.iterdir()} <= {*FILES}):
        raise InputError(f"--out {out}: has other files; name a new folder")
    out.mkdir(exist_ok=True)
    with checkpoint.atomic_write(out / "model.safetensors") as f:
        safetensors.write(model, description, f)
    with checkpoint.atomic_write(out / "config.json", "w") as f:
        json.dump({"model_type": "charrnn", **description}, f, indent=1)
    page, note = out / "index.html", "without a page"
    try:
        with checkpoint.atomic_write(page) as f:
            note = f"index.html {html.write(model, description, f, saved, bits)}"
    except InputError as error:  # of a model that has no page, or too large a one
        page.unlink(missing_ok=True)
        note = f"without a page ({error})"
    charset = Charset(**description["charset"])
    with checkpoint.atomic_write(out / "README.md", "w", errors="replace") as f:
        f.write(model_card(model, charset, saved["charrnn"], license, page.exists()))
    return note
