"""Properties of each character of a text, and their correlations with the units of a model.

T characters, N units, P properties.
"""

import re

import numpy as np

QUOTES = re.compile(
    r'"""[\s\S]*?"""|"(?:(?!\n\n)[^"])*"|“(?:(?!\n\n)[^”])*”|«(?:(?!\n\n)[^»])*»|「[^」]*」'
)
"""Quotations. Only those in triple quotes extend beyond an empty line; otherwise one unpaired mark
would invert all that follows."""
BRACKETS = {")": "(", "]": "[", "}": "{"}


def text_properties(text: str) -> dict[str, np.ndarray]:
    """Compute each property at every character, (T,) float64, by its name.

    "position in line" is the number of characters since the last newline, "indentation" that of
    white space at the beginning of the line, as far as it has been read. The others are 1 or 0:
    "inside quotes" and "inside brackets" from the opening mark to before the closing one (an
    apostrophe is no mark, and unpaired marks do not count), "end of line" before a newline, "start
    of word" at the first of a run of letters and digits.
    """
    newline = np.array([c == "\n" for c in text], bool)
    position = distance_since(newline)
    blank = np.array([c.isspace() and c != "\n" for c in text], bool)
    leading = distance_since(~blank) == position  # only white space since the newline
    word = np.array([c.isalnum() for c in text], bool)
    quotes = [(m.start(), m.end() - 1) for m in QUOTES.finditer(text)]
    found = {
        "position in line": position,
        "inside quotes": inside_ranges(quotes, len(text)),
        "inside brackets": inside_ranges(bracket_pairs(text), len(text)),
        "indentation": indentation(position, leading, newline),
        "end of line": np.append(newline, False)[1:],
        "start of word": word & ~np.append(False, word)[:-1],
    }
    return {name: values.astype(np.float64) for name, values in found.items()}


def distance_since(mark: np.ndarray) -> np.ndarray:
    """Count the characters since the last mark (T,); before the first, since before the text."""
    positions = np.arange(len(mark))
    return positions - np.maximum.accumulate(np.where(mark, positions, -1))


def indentation(position: np.ndarray, leading: np.ndarray, newline: np.ndarray) -> np.ndarray:
    """Count the leading white space of the line of each character, as far as it has been read."""
    line = np.cumsum(newline)
    so_far = np.where(leading, position, 0)
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    lengths = np.diff(np.append(starts, len(line)))
    whole = np.repeat(np.maximum.reduceat(so_far, starts), lengths) if len(line) else so_far
    return np.where(leading, so_far, whole)


def bracket_pairs(text: str) -> list[tuple[int, int]]:
    """Return the positions of brackets and of their partners."""
    opened: list[int] = []
    pairs = []
    for match in re.finditer(r"[()\[\]{}]", text):
        position, mark = match.start(), match[0]
        if mark not in BRACKETS:
            opened.append(position)
        elif opened and text[opened[-1]] == BRACKETS[mark]:
            pairs.append((opened.pop(), position))
    return pairs


def inside_ranges(ranges: list[tuple[int, int]], length: int) -> np.ndarray:
    """Whether each position, (length,) bool, is inside one of the ranges [start, end)."""
    changes = np.zeros(length + 1, np.int64)
    for start, end in ranges:
        changes[start] += 1
        changes[end] -= 1
    return np.cumsum(changes)[:-1] > 0


def correlations(activations: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation of every unit with every property, (N, P) float64.

    Its square is the fraction of a property's variance that a linear function of the unit explains.
    For a property that is 1 or 0 it is the point-biserial correlation (Tate 1954, Annals of
    Mathematical Statistics 25, 603-607). It is 0 where one of the two is constant.

    Args:
        activations: (N, T).
        values: (P, T).
    """
    return np.clip(normalize(activations) @ normalize(values).T, -1, 1)


def normalize(rows: np.ndarray) -> np.ndarray:
    """Subtract the mean of each row and scale it to length 1; zeros where it is constant."""
    rows = rows - rows.mean(1, keepdims=True, dtype=np.float64) if rows.shape[1] else rows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    size = max(1, rows.shape[1]) ** 0.5
    return np.divide(rows, lengths, out=np.zeros(rows.shape), where=lengths > 1e-9 * size)
