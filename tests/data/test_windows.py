"""Evaluation windows: each character of a part is a target once, in long rows."""

import itertools
from collections import Counter

import pytest
import torch

from charrnn.data.windows import PADDING, EvaluationWindows


@pytest.mark.parametrize("T", [1, 7, 100])
@pytest.mark.parametrize("rows", [None, 1, 5])
@pytest.mark.parametrize(
    ("N", "begin", "end"),
    [(2, 0, None), (3, 1, 3), (100, 40, 41), (225, 0, 200), (3001, 1000, None)],
)
def test_every_character_of_a_part_is_a_target_once(N, begin, end, rows, T):
    windows = EvaluationWindows(torch.arange(N), T, begin, end, rows)
    assert len(list(windows)) == len(windows)
    counts = Counter()
    for window in windows:
        assert window.inputs.shape == window.targets.shape == (min(T, N), windows.rows)
        real = window.targets != PADDING
        # A target follows its input in the text: none wraps around.
        assert window.targets[real].equal(window.inputs[real] + 1)
        counts.update(window.targets[real].tolist())
    assert counts == Counter(range(max(1, begin), end or N))
    assert len(list(windows)) == len(windows)  # a second pass


@pytest.mark.parametrize(
    ("count", "T", "burn_in", "rows"),
    [(1, 7, 500, 1), (223, 7, 0, 1), (224, 7, 0, 2), (90000, 7, 0, 64), (4000, 7, 500, 2),
     (4000, 100, 500, 2), (4000, 500, 500, 1), (10**6, 100, 500, 64)],
)  # fmt: skip
def test_rows_are_long(count, T, burn_in, rows):
    assert EvaluationWindows(torch.zeros(count + 1), T, burn_in=burn_in).rows == rows


@pytest.mark.parametrize("more", [{"burn_in": 10**30}, {"rows": 10**30}, {"seq_len": 10**30}])
def test_more_than_the_text_is_all_of_it(more):
    tokens, given = torch.arange(30), {"seq_len": 7, "burn_in": 5}
    windows = EvaluationWindows(tokens, **given | more)
    largest = {"burn_in": 30, "rows": 5, "seq_len": 30}[next(iter(more))]
    assert getattr(windows, next(iter(more))) == largest
    targets = torch.cat([window.targets.flatten() for window in windows])
    assert sorted(targets[targets != PADDING].tolist()) == list(range(1, 30))
    assert len(list(windows.burn_in_parts())) < 12


def test_rows_continue_from_window_to_window():
    windows = list(EvaluationWindows(torch.arange(500), 7))
    for before, after in itertools.pairwise(windows):
        real = before.targets[-1] != PADDING
        assert before.targets[-1][real].equal(after.inputs[0][real])
