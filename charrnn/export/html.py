"""HTML: a page that writes text with the model, in any browser, from one file without a network."""

import base64
import math
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from charrnn.analysis.template import fill_page
from charrnn.data.charset import Charset, to_points
from charrnn.data.windows import EvaluationWindows
from charrnn.errors import InputError, check, escape_control
from charrnn.evaluation import evaluate
from charrnn.evaluation.corpus import open_corpus
from charrnn.export.quantize import BITS, quantize_model
from charrnn.export.wasm import matrix_vector_module
from charrnn.generation import generate_indices
from charrnn.models import GRUEncode, GRUResize

FOLDER = Path(__file__).parent
SCRIPTS = tuple(FOLDER / name for name in ("engine.js", "writer.js", "page.js"))
MAX_BYTES = 48_000_000
"""Of a page: a larger one takes a browser too long to open."""
SCORED = 20_000
"""Characters on which the cost of the bits is measured."""
WRITTEN = 2_000
"""Characters that the model writes for that where its own text is not there."""


def write(model: nn.Module, description: dict, file: BinaryIO, saved: dict, bits: int = 16) -> str:
    """Write the page; return a line with its size and what the rounding of the weights costs.

    Args:
        saved: the checkpoint.
        bits: of a weight: 32, 16 or 8.

    Raises:
        InputError: the model has no such form, or its page would be too large.
    """
    check("bits", bits, bits in BITS, "32, 16 or 8")
    if type(model) not in (GRUEncode, GRUResize):
        raise InputError(
            f"to=html: {type(model).__name__} has no such page, which GRUEncode and GRUResize have"
        )
    check_size(model, bits)
    tensors, weights, rounded = quantize_model(model, bits)
    charset = Charset(**description["charset"])
    before, after, of = measure(model, rounded, charset, saved)
    change = round(after - before, 4) + 0.0  # never -0.0000
    cost = f"{change:+.4f} bpc on {of} ({before:.4f} to {after:.4f})"
    data = render(model, charset, tensors, weights, saved["charrnn"], bits, cost).encode()
    file.write(data)
    return f"{len(data) / 1e6:.2f} MB; {bits} bits cost {cost}"


def check_size(model: nn.Module, bits: int) -> None:
    """Raise InputError where a page would be too large, saying how large, also with fewer bits."""
    parameters = sum(p.numel() for p in model.parameters())
    sizes = {each: parameters * each // 8 * 4 // 3 for each in BITS}
    if sizes[bits] > MAX_BYTES:
        others = [f"{sizes[b] / 1e6:.0f} MB with --bits {b}" for b in BITS if b < bits]
        would = "".join(f", {other}" for other in others)
        fits = any(sizes[b] <= MAX_BYTES for b in BITS)
        raise InputError(
            f"to=html: the page would have {sizes[bits] / 1e6:.0f} MB{would}; at most"
            f" {MAX_BYTES / 1e6:.0f} MB open soon" + ("" if fits else ": take a smaller model")
        )


def render(
    model: nn.Module,
    charset: Charset,
    tensors: list[dict],
    weights: bytes,
    ours: dict,
    bits: int,
    cost: str,
) -> str:
    """Return the page."""
    parameters = sum(p.numel() for p in model.parameters())
    layers, hidden = model.gru.num_layers, model.gru.hidden_size
    unit = "bytes" if charset.unit == "byte" else "characters"
    losses = [loss for windows, loss in ours.get("validations", ()) if windows]
    name = name_of_text(ours["settings"].get("data") or {})
    about = [["Parameters", f"{parameters:,}"], ["Alphabet", f"{len(charset):,} {unit}"]]
    about += [["Trained on", name], ["Windows", f"{ours.get('windows', 0):,}"]]
    if losses:
        about.append(["Best validation", f"{min(losses) / math.log(2):.4f} bpc"])
    about += [["Weights", f"{bits} bits"], ["Rounding", cost]]
    summary = f"{type(model).__name__}, {layers} × {hidden} units, {parameters:,} parameters"  # noqa: RUF001
    if losses:
        summary += f", {min(losses) / math.log(2):.2f} bits per character"
    title = f"A model of {name}"
    description = {
        "title": title, "summary": summary, "about": about, "unit": unit, "hidden": hidden,
        "layers": layers, "vocabulary": len(charset), "reset": model.gru.reset,
        "gate": model.gru.gate, "encode": isinstance(model, GRUEncode), "tensors": tensors,
        "charset": {"points": to_points(charset.alphabet).tolist(), **charset.options},
    }  # fmt: skip
    parts = {"weights": weights, "module": matrix_vector_module()}
    encoded = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    return fill_page(FOLDER / "page.html", title, SCRIPTS, description=description, **encoded)


def name_of_text(data: dict) -> str:
    """Name the text of a training in a few words, without folders of a machine."""
    path = data.get("path")
    if isinstance(path, str):
        return escape_control(Path(path).name)
    if data.get("library"):
        return "Python's standard library"
    return "a text"


def measure(
    model: nn.Module, rounded: nn.Module, charset: Charset, saved: dict
) -> tuple[float, float, str]:
    """Return the bpc before and after the rounding of the weights, and of what text they are.

    It is the validation text of the training, or, where that is gone, a text that the model writes.
    """
    try:
        tokens, begin, end = open_corpus(saved["charrnn"], charset, {}).parts["valid"]
        end = min(end, max(begin, 1) + SCORED)
        of = f"{end - max(begin, 1):,} characters of its validation text"
        if end - max(begin, 1) < 1:
            raise InputError("nothing was validated")
    except InputError:
        start, steps = charset.encode("\n"), []
        for index in generate_indices(model, charset, start, 1, 0):
            steps.append(int(index))
            if len(steps) == WRITTEN:
                break
        tokens, begin, end, of = torch.tensor(steps), 1, WRITTEN, "a text of its own"
    windows = EvaluationWindows(tokens, 100, begin, end)
    before, after = (evaluate(each, windows).nats / math.log(2) for each in (model, rounded))
    return before, after, of
