"""HTML pages that need no other file and no network: a template filled with data and scripts."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path

HEAD = Path(__file__).with_name("head.html")
ELEMENTS = Path(__file__).with_name("elements.js")
"""What every page, and the script of every page, begins with."""
SCRIPTS = re.compile("<script>(.*?)</script>", re.DOTALL)


def fill_page(template: Path, title: str, scripts: tuple[Path, ...] = (), **parts: object) -> str:
    """Return a page whose policy allows its own scripts only, and no request.

    Args:
        template: begins with ``{{head}}``, which stands for ``HEAD``, and has ``{{scripts}}`` at
            the beginning of its one script element.
        title: text.
        scripts: files that the script element begins with, after ``ELEMENTS``.
        parts: for further ``{{NAME}}`` outside of scripts: text that is inserted as it is, or
            anything else as JSON.
    """
    text = template.read_text("utf-8").replace("{{head}}\n", HEAD.read_text("utf-8"))
    code = "\n".join(file.read_text("utf-8") for file in (ELEMENTS, *scripts))
    text = text.replace("{{scripts}}", code)
    digests = " ".join(f"'sha256-{digest(script)}'" for script in SCRIPTS.findall(text))
    values = {
        name: part if isinstance(part, str) else script_json(part) for name, part in parts.items()
    }
    values["title"] = html.escape(title)
    values["policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:;"
        f" script-src 'wasm-unsafe-eval' {digests}"
    )
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values.get(match[1], match[0]), text)


def digest(script: str) -> str:
    """Return a script's SHA-256 as a policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def script_json(value: object) -> str:
    """Encode JSON for a script element: ASCII, with nothing that begins a tag or a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
