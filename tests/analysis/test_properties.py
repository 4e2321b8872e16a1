"""Properties of characters, and their correlations with units."""

import numpy as np
import pytest
from helpers import TEXT
from hypothesis import given
from hypothesis import strategies as st
from small_models import random_model as make

from charrnn.analysis.page_data import page_data
from charrnn.analysis.properties import correlations, text_properties


def test_properties_of_a_text():
    text = '  a "b c" (d\n\t e)\n\n"x\n\nz" f[a(b]c)\n'
    found = {
        name: "".join(f"{v:.0f}" for v in values) for name, values in text_properties(text).items()
    }
    assert found == {
        "position in line": "123456789101112" "01234" "0" "012" "0" "01234567891011" "0",
        "inside quotes": "00001111000000000000000000000000000",
        "inside brackets": "00000000001111110000000000000111100",
        "indentation": "122222222222" "01222" "0" "000" "0" "000000000000" "0",
        "end of line": "00000000000100001100110000000000010",
        "start of word": "00100101000100010000100100101010100",
    }  # fmt: skip


def line_properties(text):
    """Position, indentation and end of line of the last character but one."""
    read, after = text[:-1], text[-1]
    line = read[read.rfind("\n") + 1 :]
    return len(line), len(line) - len(line.lstrip()), after == "\n"


@given(st.text(alphabet='ab \n\t"(])[', min_size=1, max_size=40))
def test_line_properties_depend_on_the_text_before_only(text):
    whole = text_properties(text)
    assert all(values.shape == (len(text),) for values in whole.values())
    for end in range(1, len(text)):
        found = [whole[k][end - 1] for k in ("position in line", "indentation", "end of line")]
        assert tuple(found) == line_properties(text[: end + 1])


def test_correlations_against_numpy():
    rng = np.random.default_rng(0)
    units, values = rng.normal(size=(7, 50)), rng.normal(size=(3, 50))
    values[1] = values[1] > 0.3
    expected = np.corrcoef(units, values)[:7, 7:]
    np.testing.assert_allclose(correlations(units, values), expected, atol=1e-12)
    found = correlations(
        np.stack([units[0], np.full(50, 0.7)]), np.stack([values[0], values[0] * 0])
    )
    assert (
        found[0, 0] == pytest.approx(expected[0, 0])
        and not found[1].any()
        and not found[:, 1].any()
    )
    assert correlations(np.zeros((2, 0)), np.zeros((3, 0))).shape == (2, 3)


def test_a_unit_that_equals_a_property_ranks_first():
    model = make(layers=2, hidden=5)
    text = TEXT[:3000]
    activations = model.activations(text)
    known = text_properties(text)
    assert len(known) == 6 and all(values.std() > 0 for values in known.values())
    for number, (name, values) in enumerate(known.items()):
        made = activations.copy()
        made[1, 3] = 0.3 - values / (2 * values.max())
        measure = page_data(model.model, model.charset, text, made)["measures"][number]
        assert measure["name"] == name
        strengths = np.array(measure["strengths"])
        assert np.abs(strengths).argmax() == 1 * 5 + 3 and strengths[8] == -1
    spread = page_data(model.model, model.charset, text, activations)["measures"][-1]
    np.testing.assert_allclose(spread["strengths"], activations.std(2).ravel(), atol=6e-4)
