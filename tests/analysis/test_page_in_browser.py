"""The neurons page in Chromium: colors, keys, clicks, and no request to a network."""

import re

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from helpers import TEXT
from pages import NASTY
from small_models import random_model as make

from charrnn.analysis.page import render_page
from charrnn.analysis.properties import correlations, text_properties


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here; test_page.py checks the page without it"
)
def test_units_and_characters_are_selected(tmp_path):
    model, text = make(NASTY + TEXT), NASTY + TEXT[:700] + "¿"
    file = tmp_path / "page.html"
    file.write_text(
        render_page(
            model.model,
            model.charset,
            text,
            "</title></script><!--",
            "<img src=x onerror=alert(1)>",
        ),
        "utf-8",
    )
    expected = model.activations(text).reshape(10, -1)
    browser = Browser(tmp_path)
    try:
        browser.open(file, "#unit=0.3&measure=standard deviation")
        check_colors(browser, expected[3])
        assert browser.evaluate("document.title").startswith(
            "Neurons of </title></script><!-- along <img"
        )
        assert (
            browser.evaluate("find('text').textContent")
            .replace("↵", "\n")
            .startswith(NASTY.encode("unicode_escape").decode().replace(r"\n", "\n") + TEXT[:100])
        )
        browser.click("#unit-1\\.2")
        check_colors(browser, expected[7])
        assert browser.evaluate("location.hash").startswith("#unit=1.2&")
        order = np.argsort(-expected.std(1).round(3), kind="stable").tolist()
        below = (order + order[-1:])[order.index(7) + 1]
        browser.press("ArrowDown")
        check_colors(browser, expected[below])
        browser.press("ArrowUp")
        check_colors(browser, expected[order[max(0, order.index(below) - 1)]])
        listed = browser.evaluate("[...document.querySelectorAll('.unit')].map(o => o.unit)")
        assert listed == order
        position = len(NASTY) + 3
        browser.click("#text .row:nth-child(2) span:nth-child(4)")
        assert browser.evaluate("state.position") == position
        nexts = browser.evaluate("[...document.querySelectorAll('.next')].map(r => r.innerText)")
        assert 5 <= len(nexts) <= 6 and sum("✓" in line for line in nexts) == 1
        # Sorting by another measure selects the unit with the highest correlation.
        browser.evaluate("find('measure').value = 0,"
                         "find('measure').dispatchEvent(new Event('change'))")  # fmt: skip
        strengths = correlations(expected, text_properties(text)["position in line"][None])[:, 0]
        check_colors(browser, expected[np.abs(strengths).argmax()])
        # Surprisal, a gate, and the units that follow a part of the text.
        change = "find('{0}').value = '{1}', find('{0}').dispatchEvent(new Event('change'))"
        browser.evaluate(change.format("color", "bits"))
        bits = model.score(text) / np.log(2)
        check_colors(browser, np.concatenate([[0], (bits / 8).clip(max=1)]), signed=False)
        browser.evaluate(change.format("color", "unit") + ";" + change.format("signal", "update"))
        unit = browser.evaluate("m.unit")
        update = model.gates(text)[1].reshape(10, -1)
        check_colors(browser, update[unit], signed=False)
        browser.evaluate(change.format("signal", "activation"))
        browser.evaluate(
            "(() => { const range = document.createRange(), at = (i) => m.spans[i].firstChild;"
            " range.setStart(at(100), 0); range.setEnd(at(129), 1);"
            " getSelection().removeAllRanges(); getSelection().addRange(range) })()"
        )
        browser.click("#mark")
        marked = np.zeros(len(text))
        marked[100:130] = 1
        strengths = correlations(np.rint(expected * 127), marked[None])[:, 0]
        found = browser.evaluate("m.measures.at(-1).strengths")
        np.testing.assert_allclose(found, strengths, atol=1e-6)
        assert browser.evaluate("m.unit") == np.abs(strengths).argmax()
        browser.click("#unmark")
        assert "marked text" not in browser.evaluate("find('measure').textContent")
        assert not browser.complaints()
        assert [url.partition("#")[0] for url in browser.requests()] in (
            [file.as_uri()], ["about:blank", file.as_uri()]
        )  # fmt: skip
    finally:
        browser.close()


def check_colors(browser, activations, signed=True):
    """Each character has the color of its activation: blue below 0, orange above."""
    colors = browser.evaluate("m.spans.map(s => getComputedStyle(s).backgroundColor)")
    found = np.array([re.findall(r"\d+", color)[:3] for color in colors], int)
    levels = np.rint(activations * 127)
    palette = np.array(browser.evaluate("colors"))
    np.testing.assert_array_equal(found, palette[levels.astype(int) + 127])
    assert len(np.unique(levels)) > 5
    if not signed:
        return
    assert (found[levels < -20][:, 0] < found[levels < -20][:, 2]).all()
    assert (found[levels > 20][:, 0] > found[levels > 20][:, 2]).all()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_two_models_side_by_side(tmp_path):
    first, second, text = make(TEXT), make(TEXT, hidden=3, layers=1), TEXT[:300]
    file = tmp_path / "page.html"
    other = second.model, second.charset, "second"
    file.write_text(render_page(first.model, first.charset, text, "first", "text", other), "utf-8")
    browser = Browser(tmp_path)
    try:
        browser.open(file)
        assert browser.evaluate("[models.length, m.count]") == [2, 10]
        check_colors(browser, first.activations(text).reshape(10, -1)[browser.evaluate("m.unit")])
        browser.click("#text-1 .row:nth-child(3) span:nth-child(2)")
        assert browser.evaluate("[m.count, m.name]") == [3, "second"]
        assert browser.evaluate("document.querySelectorAll('.unit').length") == 3
        check_colors(browser, second.activations(text)[0, browser.evaluate("m.unit")])
        position = browser.evaluate("state.position")
        here = browser.evaluate("[...document.querySelectorAll('.here')].map((s) => s.position)")
        assert here.count(position) == 2 and position > 0
        assert not browser.complaints()
    finally:
        browser.close()
