"""results.html: the table, learning curves, and bpc against each key of a sweep, in one page.

The page needs no network: charts are SVG, and each mark has a tooltip.
"""

from html import escape
from pathlib import Path

from charrnn.runs.charts import colour, learning_curves, scatter
from charrnn.runs.sweep import Job

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
.importances td:last-child { width: 60% } .bar { height: .8em; background: #125cb8 }
.grid { stroke: #e8ecf0 } .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.curve:hover { stroke-width: 4 } circle { stroke: #fff; stroke-width: 1 } circle:hover { r: 8px }
"""

ABOUT_GROUPS = (
    "Mean and standard deviation of the best bpc over seeds, and the mean difference to the first"
    " row with its standard error, over pairs of the same seed."
)


def results_page(
    name: str,
    jobs: list[Job],
    keys: list[str],
    table: list[list[str]],
    groups: list[list[str]] = (),
    importances: dict[str, float] | None = None,
) -> str:
    """Return the whole page as HTML.

    Args:
        name: of the sweep.
        jobs: sorted, the best first.
        keys: in which the jobs differ.
        table: the header, and a row for each job in the same order.
        groups: the table of jobs that differ in nothing but their seed, if there are any.
        importances: of the keys of a search, the largest first.
    """
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
        + (f"<h2>Over seeds</h2><p>{ABOUT_GROUPS}</p>{plain_table(groups)}\n" if groups else "")
        + f"<h2>Results</h2>{html_table(jobs, table, colours)}\n"
        "<h2>Validation bpc against windows</h2>"
        f"<p>Better jobs are darker.</p>{learning_curves(rated, colours)}\n"
        + (f'<h2>Best bpc against each key</h2><div class="pictures">{scatters}</div>\n')
        * bool(keys)
        + importance_bars(importances or {})
        + "</html>\n"
    )


def plain_table(table: list[list[str]]) -> str:
    """Return a table of text, numbers aligned to the right."""
    header, *body = table
    keys = len(header) - 5
    tags = [("", "number")[i >= keys] for i in range(len(header))]
    rows = ["".join(f'<th class="{c}">{escape(t)}</th>' for c, t in zip(tags, header))]
    rows += ["".join(f'<td class="{c}">{escape(t)}</td>' for c, t in zip(tags, r)) for r in body]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def importance_bars(importances: dict[str, float]) -> str:
    """Return a bar for each key of a search; nothing where there is none."""
    if not importances:
        return ""
    rows = "".join(
        f'<tr><td>{escape(key)}</td><td class="number">{100 * share:.1f} %</td>'
        f'<td><div class="bar" style="width:{100 * share:.1f}%"></div></td></tr>'
        for key, share in importances.items()
    )
    return (
        "<h2>Importance of each key</h2><p>Share of the variance of good results that each key"
        f" explains (PED-ANOVA, Watanabe et al. 2023).</p><table class=importances>{rows}</table>\n"
    )


def html_table(jobs: list[Job], table: list[list[str]], colours: dict[Path, str]) -> str:
    """Return the table, with the job's colour in front of its number."""
    header, *body = table
    last = len(header) - 1
    numeric = ["number" if i == 0 or last - 5 < i < last else "" for i in range(len(header))]
    rows = ["".join(f'<th class="{c}">{escape(t)}</th>' for c, t in zip(numeric, header))]
    for job, row in zip(jobs, body):
        cells = [f'<td class="{c}">{escape(t)}</td>' for c, t in zip(numeric, row)]
        if job.folder in colours:
            dot = f'<span class="dot" style="color:{colours[job.folder]}">&#9679;</span> '
            cells[0] = cells[0].replace(">", f">{dot}", 1)
        reason = f' title="{escape(job.reason)}"' if job.reason else ""
        state = "failed" if job.state == "failed" else ""
        cells[-1] = f'<td class="{state}"{reason}>{escape(row[-1])}</td>'
        rows.append("".join(cells))
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
