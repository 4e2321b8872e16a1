"""SVG charts of a sweep's results: learning curves, and the best bpc against one key."""

import math
from collections.abc import Callable
from html import escape
from pathlib import Path

from charrnn.runs.sweep import Job

GOOD, BAD = (0x12, 0x5C, 0xB8), (0xF2, 0xB8, 0x80)


def colour(rank: float) -> str:
    """Return the colour of a rank between the best (0) and the worst (1)."""
    return "#" + "".join(f"{round(a + rank * (b - a)):02x}" for a, b in zip(GOOD, BAD))


def learning_curves(jobs: list[Job], colours: dict[Path, str]) -> str:
    """Draw all learning curves in one chart, labelled with job numbers where they fit."""
    lines = {job.folder: job.trained for job in jobs}
    points = [point for line in lines.values() for point in line]
    if not points:
        return "<p>No validation yet.</p>"
    chart = Chart(1040, 380, [x for x, _ in points], [y for _, y in points])
    marks = [chart.frame("windows", "bpc")]
    for job in reversed(jobs):  # the best on top
        line = [(chart.x(x), chart.y(y)) for x, y in lines[job.folder]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        ink, words = colours[job.folder], f"<title>{tooltip(job)}</title>"
        marks.append(f'<polyline class="curve" stroke="{ink}" points="{path}">{words}</polyline>')
        marks += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{ink}">{words}</circle>'
            for x, y in line[:: max(1, len(line) // 50)]
        ]
    taken = []
    for job in jobs:
        x, y = chart.x(lines[job.folder][-1][0]), chart.y(job.last)
        if all(abs(x - a) > 30 or abs(y - b) > 11 for a, b in taken):
            taken.append((x, y))
            marks.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}">{job.number}</text>')
    return chart.svg(marks)


def scatter(key: str, jobs: list[Job], colours: dict[Path, str]) -> str:
    """Draw the best bpc against one key, on a numeric axis if all its values are numbers."""
    jobs = [job for job in jobs if key in job.overrides]
    if not jobs:
        return ""
    in_order = sorted(jobs, key=lambda job: job.number)
    names = list(dict.fromkeys(job.overrides[key] for job in in_order))
    numbers = [parse_number(name) for name in names]
    is_number = all(n is not None for n in numbers)
    order = {name: n if is_number else i for i, (name, n) in enumerate(zip(names, numbers))}
    chart = Chart(510, 300, list(order.values()), [job.best for job in jobs], wide=True)
    ticks = [(at, f"{at:.4g}" if is_number else name) for name, at in order.items()]
    ticks = None if is_number and len(order) > 6 else sorted(ticks)
    marks = [chart.frame(key, "best bpc", ticks)]
    for job in reversed(jobs):
        x, y = chart.x(order[job.overrides[key]]), chart.y(job.best)
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colours[job.folder]}"'
            f' fill-opacity=".85"><title>{tooltip(job)}</title></circle>'
        )
    return chart.svg(marks)


def tooltip(job: Job) -> str:
    """Return the tooltip of a job's marks."""
    return escape(f"{job.folder.name}: best {job.best:.4f}, last {job.last:.4f} bpc, {job.state}")


def parse_number(text: str) -> float | None:
    """Parse a value of the command line; None if it is not a finite number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class Chart:
    """Axes of a chart. With ``wide`` the x axis is logarithmic if its values span a factor of 8."""

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
        """Draw grid lines, tick labels and axis names; ``ticks`` are (value, label) pairs."""
        left, right, floor = self.LEFT, self.width - self.RIGHT, self.height - self.BOTTOM
        parts = []
        for value in round_numbers(*self.ys):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        if ticks is None:
            ticks = [(v, f"{v:g}") for v in self.x_ticks()]
        end = -math.inf
        for at, name in ticks:
            x, text = self.x(at), name if len(name) < 22 else name[:20] + "…"
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.TOP}" y2="{floor}"/>'
            )
            if x - 3.3 * len(text) < end:  # it would overlap the previous label
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
    """Return about four to eight round numbers between two."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * unit - raw))
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]
