"""Errors for the user: one line that names the key or file, what was found and what would do."""

import os
import re
import shlex
from collections.abc import Iterable

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


def check_working_directory() -> None:
    """Raise InputError where the folder that relative paths start from has been removed."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError("the working directory has been removed; change to another") from error


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


def shell_quote(text: str) -> str:
    r"""A word of a printed command, quoted for a shell; with control characters as ``$'a\x1b'``."""
    special = re.compile(rf"[{CONTROL}{ORDER}\t\n]")
    if not special.search(text):
        return shlex.quote(text)

    def escape(match: re.Match) -> str:
        point = ord(match[0])
        if 0xDC80 <= point <= 0xDCFF:  # a byte that is no UTF-8
            point -= 0xDC00
        elif point > 0x7F:
            return f"\\u{point:04x}"
        return f"\\x{point:02x}"

    return "$'" + special.sub(escape, re.sub(r"([\\'])", r"\\\1", text)) + "'"


def shell_command(words: Iterable[str]) -> str:
    """Words of a printed command, quoted for a shell."""
    return " ".join(map(shell_quote, words))


def one_line(text: str) -> str:
    """A text without its line breaks and indents."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip())
