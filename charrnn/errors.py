"""Errors for the user: one line that names the key or file, what was found and what would do."""

import re

CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"  # but tab and newline
ORDER = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Controls of direction and of lines, which show what is around them in another order."""


class InputError(ValueError):
    """A wrong setting, file or text. Its message is one line; the entry points exit with 2."""


class Diverged(InputError):
    """A training that diverged.

    Args:
        what: what was found, and at which window.
        good: the windows after which the weights were still good, as far as is known.
    """

    def __init__(self, what: str, good: int):
        super().__init__(f"{what}: try a lower optimizer.lr; the last checkpoint stays")
        self.what, self.good = what, good


def check(name: str, value: object, ok: bool, expected: str) -> None:
    """Raise InputError, naming the argument and what was found, unless ok."""
    if not ok:
        raise InputError(f"{name}={format_value(value)} must be {expected}")


def format_value(value: object) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, str) and value.isprintable() and value:
        return value
    return {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))


def escape_control(text: str) -> str:
    r"""A name, or a line, for a terminal or a page: control characters become \x1b and so on.

    Tab and newline pass. Lone surrogates stand for bytes, which could be control characters.
    Bidirectional controls, with which a name seems to be another, become \u202e and so on.
    """
    return re.sub(f"[{CONTROL}{ORDER}]", lambda match: repr(match[0])[1:-1], text)


def escape_text(text: str) -> str:
    """A text that a model wrote, for a terminal: as a name, but for bidirectional controls.

    Texts of some scripts need these.
    """
    return re.sub(f"[{CONTROL}]", lambda match: repr(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """A text without its line breaks and indents."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip())
