"""The report of an evaluation as a table for the terminal and as a JSON file."""

import json
from pathlib import Path

from charrnn.checkpoint.files import atomic_write
from charrnn.errors import escape_control

NOTES = {
    "cold": "{rows} rows from a zero state",
    "warm": "{rows} rows read in over {burn_in} characters",
    "dynamic": "{form}, lr {lr:g}, decay {decay:g}, {seq_len} characters a step",
}
"""How each measurement was made, beside its row."""


def format_report(report: dict) -> str:
    """Format what :func:`charrnn.evaluation.report.build_report` returned as a table."""
    files, windows = report["checkpoint"], report["windows"]
    each = zip(files, windows) if isinstance(files, list) else [(files, windows)]
    lines = [
        *(
            f"model    {escape_control(f)}" + ("" if n is None else f", window {n:,}")
            for f, n in each
        ),
        f"text     {report['split']}, {report['characters']:,} characters scored"
        f" (SHA-256 {report['sha256'][:12]}...)",
        "",
        f"{'':8}{'nats':>8}{'bpc':>9}{'perplexity':>12}{'accuracy':>10}",
    ]
    for kind, note in NOTES.items():
        if found := report.get(kind):
            lines.append(
                "{kind:8}{nats:8.4f}{bpc:9.4f}{perplexity:12.4f}{accuracy:10.2%}   {note}".format(
                    kind=kind, note=note.format(**found), **found
                )
            )
    if search := report.get("dynamic", {}).get("search"):
        least = min(search["tried"], key=lambda one: one["nats"])
        lines.append(
            f"\nsearch   {len(search['tried'])} settings on {search['characters']:,} held-back"
            f" characters, least {least['nats']:.4f} nats"
        )
    if unknown := report.get("unknown"):
        share = unknown["characters"] / report["characters"]
        lines.append(
            f"\nunknown  {unknown['characters']:,} characters ({share:.2%}) that the model does not"
            f" know cost {unknown['nats']:,.1f} nats, {unknown['of_mean']:+.4f} of the mean"
        )
    return "\n".join(lines)


def write_report(report: dict, file: Path) -> None:
    """Write what :func:`charrnn.evaluation.report.build_report` returned as JSON, atomically."""
    with atomic_write(file, "w") as f:
        f.write(json.dumps(report, indent=1) + "\n")
