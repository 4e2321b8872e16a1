"""results.html: escaped, of few validations too; in Chromium, sorted, picked and brushed."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from pages import NASTY, Elements

from charrnn.runs.groups import group_by_seed
from charrnn.runs.page import results_page
from charrnn.runs.sweep import Job, varied_keys


def job(number, curve, **overrides):
    given = [f"{k}={v}" for k, v in overrides.items()]
    return Job(Path(f"sweep/{number}"), overrides, "finished", "", curve, 1e5, 1000, number, given)


CURVE = [(0, 6.5), (10, 4.0), (20, 3.0)]


def page_of(jobs, name="a sweep", **more):
    html = results_page(name, jobs, varied_keys(jobs), group_by_seed(jobs), **more)
    page = Elements(html)
    assert [tag for tag, _ in page.tags if tag in ("script", "img", "comment", "link")] == [
        "script", "script",
    ]  # fmt: skip
    return html, json.loads(page.texts[1])


def test_names_are_escaped():
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>' + NASTY
    jobs = [job(0, CURVE, x=evil), replace(job(1, CURVE, x="1"), reason=evil, state="failed")]
    html, data = page_of(jobs, name=evil)
    assert html.count("<script") == 2 and "<img" not in html and "\x1b" not in html
    assert data["jobs"][1]["reason"].startswith('"><script>alert(1)')


@pytest.mark.parametrize(
    "curves", [[[]], [[], []], [[(0, 6.5)]], [CURVE], [CURVE, []], [CURVE] * 2, [CURVE[:2], CURVE]]
)
def test_pages_of_few_validations(curves):
    jobs = [job(i, curve, lr=str(10.0**-i), seed="1") for i, curve in enumerate(curves)]
    html, data = page_of(jobs)
    assert "NaN" not in html.partition('id="data">')[2].partition("</script>")[0]
    assert [j["curve"][0] for j in data["jobs"]] == [[w for w, _ in c if w] for c in curves]


def test_validations_that_are_not_finite():
    """They are left out: JSON, and so the page, has no such numbers."""
    curves = [[*CURVE[:2], (20, math.nan)], [(0, 6.5), (10, math.inf), (20, 3.0)], [(10, math.nan)]]
    _, data = page_of([job(i, curve, lr=str(i)) for i, curve in enumerate(curves)])
    assert [j["curve"] for j in data["jobs"]] == [[[10], [4.0]], [[20], [3.0]], [[], []]]
    assert [j["best"] for j in data["jobs"]] == [4.0, 3.0, None]


def test_values_and_links(tmp_path):
    jobs = [
        job(0, CURVE, lr="1e-3", model="lstm"),
        job(1, CURVE, lr="auto"),
        job(2, CURVE, lr="inf", model="1"),
    ]
    jobs[0] = replace(jobs[0], folder=tmp_path / "0_a b%'")
    jobs[0].folder.mkdir()
    (jobs[0].folder / "report.html").touch()
    _, data = page_of(jobs, sweep=tmp_path)
    assert [j["values"] for j in data["jobs"]] == [[0.001, "lstm"], ["auto", None], ["inf", 1.0]]
    assert [j["link"] for j in data["jobs"]] == ["0_a%20b%25%27/report.html", None, None]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; the others check the data")
def test_in_a_browser(tmp_path):
    jobs = [
        job(n, [(w, b + bpc / 10) for w, b in CURVE], lr=lr, model=model, seed=str(seed))
        for n, (lr, model, seed, bpc) in enumerate(
            [("1e-3", "lstm", 1, 0), ("1e-3", "lstm", 2, 1), ("1e-2", "gru", 1, 2),
             ("1e-1", "gru", 1, 3), ("1e-2", NASTY[:20], 2, 4)])
    ]  # fmt: skip
    jobs.append(replace(job(5, [], lr="3"), state="failed", reason="loss is not finite"))
    file = tmp_path / "results.html"
    file.write_text(page_of(jobs, importances={"lr": 0.75, "model": 0.25})[0], "utf-8")
    browser = Browser(tmp_path)
    try:
        browser("Emulation.setDeviceMetricsOverride", width=1400, height=1000,
                deviceScaleFactor=1, mobile=False)  # fmt: skip
        browser.open(file)

        def rows(which=""):
            return browser.evaluate(
                f"[...document.querySelectorAll('#jobs tbody tr{which}')].map((row) => row.job)"
            )

        assert rows() == [0, 1, 2, 3, 4, 5]
        assert browser.evaluate("document.querySelectorAll('canvas').length") == 5
        assert "75.0 %" in browser.evaluate("find('importances').textContent")
        assert "0.0707" in browser.evaluate("find('seeds').textContent")  # the deviation
        assert "loss is not finite" in browser.evaluate("find('jobs').textContent")
        marks = "withRoom({ valToPos: (x) => 20 * x }, [0, 1, 1.1, 1.2, 9])"
        assert browser.evaluate(marks) == [0, 1, None, None, 9]
        # Sorting, by numbers and back; what is missing stays last.
        browser.click("#jobs th:nth-child(2) button")
        assert rows() == [0, 1, 2, 4, 3, 5]
        browser.click("#jobs th:nth-child(5) button")
        browser.click("#jobs th:nth-child(5) button")
        assert rows() == [4, 3, 2, 1, 0, 5]
        # A click on a row, and one on a curve, pick jobs out.
        browser.click("#jobs tbody tr:nth-child(2)")
        assert rows(".picked") == [3] and 0 in rows(".dim")
        position = browser.evaluate(
            "(() => { const { plot } = drawn[0], box = plot.over.getBoundingClientRect();"
            " return [box.x + plot.valToPos(15, 'x'), box.y + plot.valToPos(3.5, 'y') + 1] })()"
        )

        def mouse(kind, x, y):
            browser("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

        browser.evaluate("scrollTo(0, 0)")
        position = browser.evaluate(
            "(() => { const { plot } = drawn[0], box = plot.over.getBoundingClientRect();"
            " return [box.x + plot.valToPos(15, 'x'), box.y + plot.valToPos(3.5, 'y') + 1] })()"
        )
        browser("Input.dispatchMouseEvent", type="mouseMoved", x=position[0], y=position[1])
        assert browser.evaluate("state.over") == 0
        mouse("mousePressed", *position)
        mouse("mouseReleased", *position)
        assert sorted(rows(".picked")) == [0, 3]
        browser.click("#clear")
        assert rows(".picked") == rows(".dim") == []
        # A brush along the first axis keeps the lower half of the learning rates.
        browser.evaluate("find('parallel').scrollIntoView({block: 'center'})")
        ends = browser.evaluate(
            "(() => { const { plot } = drawn[1], box = plot.over.getBoundingClientRect();"
            " return [0.55, -0.02].map((y) => [box.x + 1, box.y + plot.valToPos(y, 'y')]) })()"
        )
        browser("Input.dispatchMouseEvent", type="mouseMoved", x=ends[0][0], y=ends[0][1])
        mouse("mousePressed", *ends[0])
        mouse("mouseMoved", *ends[1])
        mouse("mouseReleased", *ends[1])
        assert sorted(rows(":not(.dim)")) == [0, 1, 2, 4]
        for width in (390, 1000):
            browser("Emulation.setDeviceMetricsOverride", width=width, height=800,
                    deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
            browser.evaluate("new Promise((r) => setTimeout(r, 100))")  # charts follow
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert not browser.complaints() and len(browser.requests()) <= 2
    finally:
        browser.close()
