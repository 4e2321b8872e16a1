"""Export: a checkpoint's model, with its settings and charset, in a file for other programs."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from charrnn import __version__, checkpoint
from charrnn.data.charset import Charset
from charrnn.data.files import user_path
from charrnn.errors import InputError, check

ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt", "html": ".page.html"}
ENDINGS |= {"folder": ""}
"""Formats, each in a module of its name, and the endings of their files."""
DEFAULTS = {"html": {"bits": 16}, "folder": {"bits": 16, "license": "unknown"}}
"""Options of formats that have any."""


def export(
    path: str | Path,
    to: str,
    out: str | Path | None = None,
    allow_targets: Sequence[str] = (),
    tell: Callable[[str], object] = lambda line: None,
    **options: object,
) -> Path:
    """Write a checkpoint's model in another format, atomically.

    Args:
        path: a checkpoint, or a run's folder.
        to: "safetensors", which :func:`charrnn.load` and ``init_from=`` read too; "onnx", a graph
            of one time step; "torch", plain dictionaries of tensors, of which that of ``gru`` fits
            ``torch.nn.GRU`` (where ``reset=after`` and ``gate=sigmoid``); "html", a page that
            writes with the model; "folder", what a model hub expects, which ``charrnn.load`` reads.
        out: the file or folder to write; None puts it beside the checkpoint.
        allow_targets: as in :func:`charrnn.load`.
        tell: called with a line on what was written, where there is more to say than its name.
        options: ``bits`` of a weight in a page, 32, 16 or 8, of "html" and "folder"; ``license`` of
            a "folder", an SPDX identifier in lower case.

    Returns:
        The file.

    Raises:
        InputError: there is no checkpoint, or a package that the format needs is not installed.
        OSError: the file cannot be written.
    """
    check("to", to, to in ENDINGS, " or ".join(ENDINGS))
    known = DEFAULTS.get(to, {})
    for name, value in options.items():
        has = [format for format, names in DEFAULTS.items() if name in names]
        check(name, value, name in known, f"left out unless to={' or to='.join(has)}")
    options = known | options
    file = checkpoint.find_checkpoint(path)
    saved = checkpoint.read(file)
    model, charset = checkpoint.build_model(saved, allow_targets)
    out = file.with_suffix(ENDINGS[to]) if out is None else user_path(out)
    if any(each.exists() and each.samefile(file) for each in (out, out / "model.safetensors")):
        raise InputError(f"--out {out}: is the model to export; name another file")
    module = importlib.import_module(f"charrnn.export.{to}")
    arguments = model, describe(saved, charset)
    if to == "folder":
        tell(module.write(*arguments, out, saved, **options))
        return out
    with checkpoint.atomic_write(out) as f:
        if to == "html":
            tell(module.write(*arguments, f, saved, **options))
        else:
            module.write(*arguments, f)
    return out


def describe(saved: dict, charset: Charset) -> dict:
    """Return the model's settings and charset as plain values, without paths of this machine."""
    return {
        "format": checkpoint.FORMAT,
        "version": __version__,
        "settings": {"model": saved["charrnn"]["settings"]["model"]},
        "charset": charset.state_dict(),
    }
