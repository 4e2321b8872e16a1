"""Labels of characters and bytes: control and format characters as escapes."""

import unicodedata

import numpy as np

from charrnn.data.charset import UNKNOWN, Charset


def text_labels(charset: Charset, indices: np.ndarray, characters: str) -> list[str]:
    """Return the label of each position of a text.

    Args:
        indices: (T,) of the text.
        characters: the text as the charset reads it. Of bytes, each that completes a character is
            shown as that character, and the others as escapes.
    """
    if charset.unit == "char":
        return [visible_character(c) for c in characters]
    labels, decoder = [], charset.decoder()
    for index, byte in zip(indices, characters):
        completed = decoder(index) if index else byte if byte < "\x80" else ""
        labels.append(visible_character(completed[-1]) if completed else f"\\x{ord(byte):02x}")
    return labels


def index_label(charset: Charset, index: int) -> str:
    """Return the label of one index, without its context."""
    character = (UNKNOWN + charset.alphabet)[index]
    if charset.unit == "byte" and index and character >= "\x80":
        return f"\\x{ord(character):02x}"
    return visible_character(character)


def visible_character(character: str) -> str:
    r"""Escape a character that is invisible or affects its neighbors, as \x1b or \u202e.

    Tab and newline are returned unchanged.
    """
    if character in "\t\n" or character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
