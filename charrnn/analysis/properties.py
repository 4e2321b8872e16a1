"""What can be said of each character of a text, and how well the units of a model tell it.

T characters, N units, P properties.
"""

import re

import numpy as np

QUOTES = re.compile(
    r'"""[\s\S]*?"""|"(?:(?!\n\n)[^"])*"|“(?:(?!\n\n)[^”])*”|«(?:(?!\n\n)[^»])*»|「[^」]*」'
)
"""Quotations; none but one in three quotes goes beyond an empty line, for one mark too many would
turn all that follows inside out."""
BRACKETS = {")": "(", "]": "[", "}": "{"}


def properties(text: str) -> dict[str, np.ndarray]:
    """Each property at every character once it is read, (T,) float64, by its name.

    "position in line" counts the characters since the last newline, "indentation" the white space
    at the beginning of the line as far as it is read. The others are 1 or 0: "inside quotes" and
    "inside brackets" from the opening mark to before the closing one (an apostrophe is no mark, and
    what has no partner is none), "end of line" before a newline, "start of word" at the first
    letter or digit of several.
    """
    newline = np.array([c == "\n" for c in text], bool)
    position = since(newline)
    blank = np.array([c.isspace() and c != "\n" for c in text], bool)
    leading = since(~blank) == position  # nothing but white space since the newline
    word = np.array([c.isalnum() for c in text], bool)
    found = {
        "position in line": position,
        "inside quotes": inside([(m.start(), m.end() - 1) for m in QUOTES.finditer(text)], text),
        "inside brackets": inside(bracket_pairs(text), text),
        "indentation": indentation(position, leading, newline),
        "end of line": np.append(newline, False)[1:],
        "start of word": word & ~np.append(False, word)[:-1],
    }
    return {name: values.astype(np.float64) for name, values in found.items()}


def since(mark: np.ndarray) -> np.ndarray:
    """The places since the last mark, 0 at one; before the first, those since before the text."""
    places = np.arange(len(mark))
    return places - np.maximum.accumulate(np.where(mark, places, -1))


def indentation(position: np.ndarray, leading: np.ndarray, newline: np.ndarray) -> np.ndarray:
    """The white space before the first other character of each line, as far as it is read."""
    line = np.cumsum(newline)
    so_far = np.where(leading, position, 0)
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    lengths = np.diff(np.append(starts, len(line)))
    whole = np.repeat(np.maximum.reduceat(so_far, starts), lengths) if len(line) else so_far
    return np.where(leading, so_far, whole)


def bracket_pairs(text: str) -> list[tuple[int, int]]:
    """The places of brackets and of their partners."""
    opened: list[int] = []
    pairs = []
    for match in re.finditer(r"[()\[\]{}]", text):
        place, mark = match.start(), match[0]
        if mark not in BRACKETS:
            opened.append(place)
        elif opened and text[opened[-1]] == BRACKETS[mark]:
            pairs.append((opened.pop(), place))
    return pairs


def inside(pairs: list[tuple[int, int]], text: str) -> np.ndarray:
    """Whether each place is in one of the ranges, (T,) bool."""
    changes = np.zeros(len(text) + 1, np.int64)
    for start, end in pairs:
        changes[start] += 1
        changes[end] -= 1
    return np.cumsum(changes)[:-1] > 0


def correlations(activations: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pearson's correlation of every unit with every property, (N, P) float64 from -1 to 1.

    Its square is the share of a property's variance that a straight line from the unit accounts
    for. With a property that is 1 or 0 it is the point-biserial correlation (Tate 1954, Annals of
    Mathematical Statistics 25, 603-607). Of what does not vary it is 0.

    Args:
        activations: (N, T).
        values: (P, T).
    """
    units, wanted = standardized(activations), standardized(values)
    return np.clip(units @ wanted.T, -1, 1)


def standardized(rows: np.ndarray) -> np.ndarray:
    """Rows less their means, of length 1; zeros where a row does not vary, as float64."""
    rows = rows - rows.mean(1, keepdims=True, dtype=np.float64) if rows.shape[1] else rows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    size = max(1, rows.shape[1]) ** 0.5
    return np.divide(rows, lengths, out=np.zeros(rows.shape), where=lengths > 1e-9 * size)
