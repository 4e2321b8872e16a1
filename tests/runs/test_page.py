"""results.html: well-formed, self-contained, and with everything escaped."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from charrnn.runs.page import results_page
from charrnn.runs.report import results_table
from charrnn.runs.sweep import Job, varied_keys


class Tags(HTMLParser):
    """Fails if tags do not match; collects tags that would load or run something."""

    VOID = {"meta", "line", "circle", "polyline"}

    def __init__(self):
        super().__init__()
        self.open, self.suspicious, self.count = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag in ("script", "img", "link", "iframe") or any(
            name in ("src", "href", "onload", "onclick") for name, _ in attrs
        ):
            self.suspicious.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def job(number, curve, **overrides):
    given = [f"{k}={v}" for k, v in overrides.items()]
    return Job(Path(f"sweep/{number}"), overrides, "finished", "", curve, 1e5, 1000, number, given)


CURVE = [(0, 6.5), (10, 4.0), (20, 3.0)]


def page_of(jobs, name="a sweep"):
    html = results_page(name, jobs, varied_keys(jobs), results_table(jobs))
    tags = Tags()
    tags.feed(html)
    assert tags.open == [] and tags.suspicious == []
    return html, tags


def test_names_are_escaped():
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    html, _ = page_of([job(0, CURVE, x=evil), job(1, CURVE, x="1")], name=evil)
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html


@pytest.mark.parametrize(
    "curves", [[[]], [[], []], [[(0, 6.5)]], [CURVE], [CURVE, []], [CURVE] * 2, [CURVE[:2], CURVE]]
)
def test_pages_of_few_validations(curves):
    jobs = [job(i, curve, lr=str(10.0**-i), seed="1") for i, curve in enumerate(curves)]
    html, tags = page_of(jobs)
    assert tags.count["tr"] == 1 + len(jobs) and "nan" not in html
    assert tags.count.get("polyline", 0) == sum(len(curve) > 1 for curve in curves)


def test_tick_labels_are_short_and_do_not_overlap():
    rates = ["0.0001000790385438", "0.0004634241230001", "0.00047", "0.0144868338872"]
    html, _ = page_of([job(i, CURVE, lr=rate) for i, rate in enumerate(rates)])
    assert ">0.0001001<" in html and ">0.01449<" in html and ">0.0004634<" in html
    assert ">0.00047<" not in html.partition("Best bpc against")[2]  # it would overlap another
