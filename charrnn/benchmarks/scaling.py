"""Time of a pass with one process and with several: python -m charrnn.benchmarks.scaling

T time steps, B rows of a process, R rows of all processes, H hidden size, L layers.

Runs whole trainings on Python's own library in turns, without validation and samples. Each number
of processes is measured twice: with R rows divided among the processes, which trains the same
windows to the same weights, and with B rows for each, which trains fewer and wider windows. The
processes share the machine's cores. Rates are those of metrics.csv, without the first.
"""

import argparse
import csv
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from charrnn.benchmarks import report

LOG_EVERY = 10  # windows between two rates


def rates(args: argparse.Namespace, processes: int, rows: int, folder: Path) -> list[float]:
    """Train, and return the characters per second over every ``LOG_EVERY`` windows."""
    run = folder / f"{processes}-{rows}-{len(list(folder.iterdir()))}"
    subprocess.run(
        [
            sys.executable, "-m", "charrnn", "train", f"hydra.run.dir={run}",
            f"trainer.devices={processes}", "trainer.accelerator=cpu",
            f"data.batch_size={rows}", f"data.seq_len={args.steps}",
            f"model.hidden_size={args.hidden}", f"model.num_layers={args.layers}",
            f"trainer.max_steps={args.windows}", "trainer.limit_val_batches=0",
            "callbacks.samples=null", f"trainer.log_every_n_steps={LOG_EVERY}", *args.overrides,
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with open(run / "metrics.csv", newline="") as f:
        found = [float(row["train/chars_per_second"]) for row in csv.DictReader(f)]
    return found[1:]


def measure(args: argparse.Namespace, folder: Path) -> list[dict]:
    """Measure each number of processes, with divided rows and with rows for each."""
    ways = [(n, args.rows // n) for n in args.processes]
    ways += [(n, args.rows) for n in args.processes if n > 1]
    found: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    for _ in range(args.turns):
        for (processes, rows), values in found.items():
            values += rates(args, processes, rows, folder)
    results = []
    for (processes, rows), values in found.items():
        quarter, half, three = report.quartiles(values)
        windows = math.ceil(math.ceil(args.characters / args.steps) / (rows * processes))
        characters = windows * rows * processes * args.steps
        results.append({
            "processes": processes, "rows": rows, "windows": windows,
            "characters_per_second": [quarter, half, three],
            "milliseconds": 1e3 * rows * processes * args.steps / half,
            "seconds_a_pass": characters / half, "count": len(values),
        })  # fmt: skip
    return results


HEADER = ["processes x B", "windows in a pass", "ms a window", "characters/s (quartiles)",
          "s a pass", "times", "rates"]  # fmt: skip


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--hidden", type=int, default=128, help="H")
    parser.add_argument("--layers", type=int, default=2, help="L")
    parser.add_argument("--rows", type=int, default=16, help="B of one process")
    parser.add_argument("--steps", type=int, default=100, help="T")
    parser.add_argument("--characters", type=float, default=4.5e6, help="of a pass")
    parser.add_argument("--windows", type=int, default=200, help="of a run")
    parser.add_argument("--turns", type=int, default=3, help="runs of each")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="further settings of the training"
    )
    args = parser.parse_args(arguments)
    args.processes = args.processes or [1, 2]
    return args


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    args = parse(arguments)
    about = report.machine(torch.device("cpu"))
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"H {args.hidden}, L {args.layers}, T {args.steps}; {args.characters:,.0f} characters\n")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(args, Path(folder))
    first = results[0]["seconds_a_pass"]
    lines = [
        [
            f"{r['processes']} x {r['rows']}",
            str(r["windows"]),
            f"{r['milliseconds']:.2f}",
            "{1:,.0f} ({0:,.0f} to {2:,.0f})".format(*r["characters_per_second"]),
            f"{r['seconds_a_pass']:.1f}",
            f"{first / r['seconds_a_pass']:.2f}",
            str(r["count"]),
        ]
        for r in results
    ]
    print(report.table(HEADER, lines))
    report.write_json(args.json, about | vars(args), results)


if __name__ == "__main__":
    main()
