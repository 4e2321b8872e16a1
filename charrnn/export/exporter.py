"""Export: a checkpoint's model, with its settings and charset, in a file for other programs."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from charrnn import __version__, checkpoint
from charrnn.data.charset import Charset
from charrnn.errors import check

ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt", "html": ".html"}
"""Formats, each in a module of its name, and the endings of their files."""


def export(
    path: str | Path,
    to: str,
    out: str | Path | None = None,
    allow_targets: Sequence[str] = (),
    bits: int | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Path:
    """Write a checkpoint's model in another format, atomically.

    Args:
        path: a checkpoint, or a run's folder.
        to: "safetensors", which :func:`charrnn.load` and ``init_from=`` read too; "onnx", a graph
            of one time step; "torch", plain dictionaries of tensors, of which that of ``gru`` fits
            ``torch.nn.GRU`` (where ``reset=after`` and ``gate=sigmoid``); "html", a page that
            writes with the model.
        out: the file to write; None puts it beside the checkpoint.
        allow_targets: as in :func:`charrnn.load`.
        bits: of a weight in "html": 32, 16 (None) or 8.
        tell: called with a line on what was written, where there is more to say than its name.

    Returns:
        The file.

    Raises:
        InputError: there is no checkpoint, or a package that the format needs is not installed.
        OSError: the file cannot be written.
    """
    check("to", to, to in ENDINGS, " or ".join(ENDINGS))
    check("bits", bits, bits is None or to == "html", "left out unless to=html")
    file = checkpoint.find_checkpoint(path)
    saved = checkpoint.read(file)
    model, charset = checkpoint.build_model(saved, allow_targets)
    out = file.with_suffix(ENDINGS[to]) if out is None else Path(out)
    module = importlib.import_module(f"charrnn.export.{to}")
    with checkpoint.atomic_write(out) as f:
        if to == "html":
            tell(module.write(model, describe(saved, charset), f, saved, bits or 16))
        else:
            module.write(model, describe(saved, charset), f)
    return out


def describe(saved: dict, charset: Charset) -> dict:
    """Return the model's settings and charset as plain values, without paths of this machine."""
    return {
        "format": checkpoint.FORMAT,
        "version": __version__,
        "settings": {"model": saved["charrnn"]["settings"]["model"]},
        "charset": charset.state_dict(),
    }
