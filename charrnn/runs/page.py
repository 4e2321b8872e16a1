"""results.html: learning curves, and bpc against each key, as one page that needs no network.

Jobs are those of :mod:`charrnn.runs.sweeps`. Every picture is SVG; what a mark is shows when the
pointer rests on it.
"""

import math
from collections.abc import Callable
from html import escape
from pathlib import Path

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2733; background: #fff; margin: 2rem auto;
       max-width: 1080px; padding: 0 1rem }
h1 { font-size: 1.35rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
p { margin: .3rem 0; color: #5b6773 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #d7dde3; padding: .25rem .6rem }
td { border-bottom: 1px solid #e8ecf0; padding: .25rem .6rem }
.number { text-align: right; white-space: nowrap }
.failed { color: #b42318 } .dot { font-size: 1.2em; line-height: 1 }
svg { display: block; max-width: 100%; height: auto } svg text { font-size: 12px; fill: #5b6773 }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem }
.grid { stroke: #e8ecf0 } .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.curve:hover { stroke-width: 4 } circle { stroke: #fff; stroke-width: 1 } circle:hover { r: 8px }
"""
GOOD, BAD = (0x12, 0x5C, 0xB8), (0xF2, 0xB8, 0x80)


def page(name: str, jobs: list, keys: list[str], table: list[list[str]]) -> str:
    """The whole page; the jobs are in order, the best first, and have the table's rows."""
    rated = [job for job in jobs if job.best == job.best]
    colours = {job.folder: colour(i / max(1, len(rated) - 1)) for i, job in enumerate(rated)}
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    scatters = "".join(scatter(key, rated, colours) for key in keys)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(name)}</title>'
        f"<style>{STYLE}</style>\n<h1>{escape(name)}</h1><p>{len(jobs)} jobs: {summary}</p>\n"
        f"<h2>Results</h2>{html_table(jobs, table, colours)}\n"
        "<h2>Validation bpc against windows</h2>"
        f"<p>The darker, the better the job's best.</p>{curves(rated, colours)}\n"
        + (f'<h2>Best bpc against each key</h2><div class="pictures">{scatters}</div>\n')
        * bool(keys)
        + "</html>\n"
    )


def html_table(jobs: list, table: list[list[str]], colours: dict[Path, str]) -> str:
    """The table, a job's colour before its number."""
    head, *body = table
    last = len(head) - 1
    numeric = ["number" if i == 0 or last - 5 < i < last else "" for i in range(len(head))]
    lines = ["".join(f'<th class="{c}">{escape(t)}</th>' for c, t in zip(numeric, head))]
    for job, row in zip(jobs, body):
        cells = [f'<td class="{c}">{escape(t)}</td>' for c, t in zip(numeric, row)]
        if job.folder in colours:
            dot = f'<span class="dot" style="color:{colours[job.folder]}">&#9679;</span> '
            cells[0] = cells[0].replace(">", f">{dot}", 1)
        reason = f' title="{escape(job.reason)}"' if job.reason else ""
        state = "failed" if job.state == "failed" else ""
        cells[-1] = f'<td class="{state}"{reason}>{escape(row[-1])}</td>'
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def colour(share: float) -> str:
    """From the best (0) to the worst (1)."""
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(GOOD, BAD))


def describe(job) -> str:
    """The words on a mark."""
    return escape(f"{job.folder.name}: best {job.best:.4f}, last {job.last:.4f} bpc, {job.state}")


def curves(jobs: list, colours: dict[Path, str]) -> str:
    """All learning curves in one picture, each with its job's number where there is room."""
    lines = {job.folder: job.trained for job in jobs}
    points = [point for line in lines.values() for point in line]
    if not points:
        return "<p>No validation yet.</p>"
    picture = Picture(1040, 380, [x for x, _ in points], [y for _, y in points])
    marks = [picture.frame("windows", "bpc")]
    for job in reversed(jobs):  # the best on top
        places = [(picture.x(x), picture.y(y)) for x, y in lines[job.folder]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        ink, words = colours[job.folder], f"<title>{describe(job)}</title>"
        marks.append(f'<polyline class="curve" stroke="{ink}" points="{path}">{words}</polyline>')
        marks += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{ink}">{words}</circle>'
            for x, y in places[:: max(1, len(places) // 50)]
        ]
    taken = []
    for job in jobs:
        x, y = picture.x(lines[job.folder][-1][0]), picture.y(job.last)
        if all(abs(x - a) > 30 or abs(y - b) > 11 for a, b in taken):
            taken.append((x, y))
            marks.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}">{job.number}</text>')
    return picture.svg(marks)


def scatter(key: str, jobs: list, colours: dict[Path, str]) -> str:
    """The best bpc against one key: by value where all are numbers, else by name."""
    jobs = [job for job in jobs if key in job.overrides]
    if not jobs:
        return ""
    in_order = sorted(jobs, key=lambda job: job.number)
    names = list(dict.fromkeys(job.overrides[key] for job in in_order))
    numbers = [number(name) for name in names]
    is_number = all(n is not None for n in numbers)
    order = {name: n if is_number else i for i, (name, n) in enumerate(zip(names, numbers))}
    picture = Picture(510, 300, list(order.values()), [job.best for job in jobs], wide=True)
    ticks = [(at, f"{at:.4g}" if is_number else name) for name, at in order.items()]
    ticks = None if is_number and len(order) > 6 else sorted(ticks)
    marks = [picture.frame(key, "best bpc", ticks)]
    for job in reversed(jobs):
        x, y = picture.x(order[job.overrides[key]]), picture.y(job.best)
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colours[job.folder]}"'
            f' fill-opacity=".85"><title>{describe(job)}</title></circle>'
        )
    return picture.svg(marks)


def number(text: str) -> float | None:
    """A value of the command line as a number, None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class Picture:
    """Axes, the horizontal one logarithmic where its values are far apart and ``wide`` is set."""

    LEFT, RIGHT, TOP, BOTTOM = 56, 30, 10, 46

    def __init__(self, width: int, height: int, xs: list, ys: list, wide: bool = False):
        self.width, self.height = width, height
        logarithmic = wide and min(xs) > 0 and max(xs) >= 8 * min(xs)
        self.xs = (min(xs), max(xs))
        self.scale: Callable = math.log10 if logarithmic else float
        low, high = min(ys), max(ys)
        margin = (high - low) * 0.06 or 0.05
        self.ys = (low - margin, high + margin)
        self.inset = 24 if wide else 6

    def x(self, value: float) -> float:
        low, high = map(self.scale, self.xs)
        share = (self.scale(value) - low) / (high - low) if high > low else 0.5
        left, right = self.LEFT + self.inset, self.width - self.RIGHT - self.inset
        return left + share * (right - left)

    def y(self, value: float) -> float:
        low, high = self.ys
        share = (value - low) / (high - low)
        return self.height - self.BOTTOM - share * (self.height - self.BOTTOM - self.TOP)

    def frame(self, x_name: str, y_name: str, ticks: list | None = None) -> str:
        """Grid lines, numbers and names of the axes; ``ticks`` are (place, name) pairs."""
        left, right, floor = self.LEFT, self.width - self.RIGHT, self.height - self.BOTTOM
        parts = []
        for value in round_numbers(*self.ys):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        if ticks is None:
            ticks = [(v, f"{v:g}") for v in self.x_ticks()]
        end = -math.inf
        for place, name in ticks:
            x, text = self.x(place), name if len(name) < 22 else name[:20] + "…"
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.TOP}" y2="{floor}"/>'
            )
            if x - 3.3 * len(text) < end:  # there is no room for it
                continue
            end = x + 3.3 * len(text) + 6
            parts.append(
                f'<text x="{x:.1f}" y="{floor + 17}" text-anchor="middle">{escape(text)}</text>'
            )
        middle, half = (left + right) / 2, (self.TOP + floor) / 2
        parts.append(
            f'<text x="{middle}" y="{self.height - 8}" text-anchor="middle"'
            f' font-weight="600">{escape(x_name)}</text>'
            f'<text x="14" y="{half}" text-anchor="middle" font-weight="600"'
            f' transform="rotate(-90 14 {half})">{escape(y_name)}</text>'
        )
        return "".join(parts)

    def x_ticks(self) -> list[float]:
        low, high = self.xs
        if self.scale is float:
            return round_numbers(low, high)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high < 100 * low else (1, 3)
        return [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]

    def svg(self, marks: list[str]) -> str:
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
            f' role="img">{"".join(marks)}</svg>'
        )


def round_numbers(low: float, high: float) -> list[float]:
    """Some four to eight round numbers between two."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * unit - raw))
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]
