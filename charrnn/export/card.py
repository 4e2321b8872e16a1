"""The card of a model: what it is, what it was trained on, figures, samples, limits."""

import html
import math
import re

from torch import nn

from charrnn.data.charset import Charset
from charrnn.errors import check, escape_text, one_line
from charrnn.export.html import name_of_text
from charrnn.generation import generate_texts

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
TEMPERATURES = (0.5, 0.8, 1.0)
"""Of the samples."""
LENGTH = 400
LIMITS = (
    "A model of characters that has read one text. It writes in the manner of that text and knows"
    " nothing else; what it states is invented. It may repeat passages of its training text, with"
    " the names and opinions in them. It has no filter. Characters outside its alphabet are one and"
    " the same to it."
)
USE = """```python
import charrnn  # pip install charrnn[export]

model = charrnn.load("FOLDER")  # this folder
print(model.generate(length=500, temperature=0.8, seed=1))
```"""


def model_card(model: nn.Module, charset: Charset, ours: dict, license: str, has_page: bool) -> str:
    """Return the card in Markdown, with the metadata that hubs read in front.

    Args:
        ours: what the checkpoint holds under "charrnn".
        license: SPDX identifier in lower case.
        has_page: whether index.html lies beside it.
    """
    name = escape_markdown(name_of_text(ours["settings"].get("data") or {}))
    parameters = sum(p.numel() for p in model.parameters())
    unit = "bytes" if charset.unit == "byte" else "characters"
    figures = [("Kind", type(model).__name__), ("Parameters", f"{parameters:,}")]
    figures += [("Alphabet", f"{len(charset):,} {unit}")]
    figures += [("Windows of training", f"{ours.get('windows', 0):,}")]
    losses = [loss for windows, loss in ours.get("validations", ()) if windows]
    if losses:
        best, last = min(losses), losses[-1]
        figures.append(("Best validation", f"{best:.4f} nats, {best / math.log(2):.4f} bpc"))
        figures.append(("Last validation", f"{last:.4f} nats, {last / math.log(2):.4f} bpc"))
    corpus = ours.get("corpus") or {}
    data = f"{name}."
    if corpus.get("size"):
        data += f" {corpus['size']:,} {unit}, SHA-256 of the text `{corpus['sha256']}`."
    front = ["---", f"license: {license}", "library_name: charrnn", "pipeline_tag: text-generation"]
    front += ["tags:", "- character-level", "- rnn", "- charrnn", "---"]
    page = "Open `index.html` in a browser to write with it, without a network.\n\n" * has_page
    return "\n".join(
        [
            *front,
            "",
            f"# A character-level model of {name}",
            "",
            f"{page}## Use",
            "",
            USE,
            "",
            "## Training data",
            "",
            data,
            "",
            "## Figures",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in figures),
            "",
            "## Samples",
            "",
            *samples(model, charset),
            "## Limits",
            "",
            LIMITS,
            "",
        ]
    )


def check_license(license: str) -> None:
    """Raise InputError unless a license is an identifier as hubs know them."""
    ok = LICENSE.fullmatch(license) is not None
    check("--license", license, ok, "an identifier in lower case, such as apache-2.0 or unknown")


def samples(model: nn.Module, charset: Charset) -> list[str]:
    """Return samples at several temperatures, in fences that no sample closes."""
    lines = []
    for temperature in TEMPERATURES:
        steps = generate_texts(model, charset, "", LENGTH, temperature=temperature, seed=1)
        text = escape_text("".join(added for (added,) in steps))
        longest = max((len(run) for run in re.findall("`+", text)), default=0)
        fence = "`" * max(3, longest + 1)
        lines += [f"Temperature {temperature}:", "", f"{fence}text", text, fence, ""]
    return lines


def escape_markdown(text: str) -> str:
    """A text on one line in which Markdown and HTML mean nothing."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(one_line(text), quote=False))
