"""Time for a pass on many GPUs, reckoned and not measured: python -m charrnn.benchmarks.reckoning

T time steps, B rows of a GPU, R rows of all GPUs, V vocabulary size, H hidden size, L layers.

A window is computed, and then the gradients are averaged over all GPUs:

    compute  = the longest of: floating-point operations / rate; 2 T L * step, the chain of steps
               there and back, which no number of rows shortens; the host's time for a window
    average  = 2 (g - 1) (bytes / g / inner bandwidth + inner latency)        in a machine of g GPUs
             + 2 (m - 1)/m bytes / g / outer bandwidth + 2 log2(m) outer latency   over m machines

A ring within the machine; then each GPU its share, by trees, through a network card of its own
(Thakur, Rabenseifner and Gropp 2005, doi:10.1177/1094342005051521). The two do not overlap: the
gradients of such models fit in one bucket of DistributedDataParallel (25 MiB), which is full only
when the backward pass ends. Validation, which every process reads whole, and samples are left out.
Every number that the arguments set is an assumption; --compute takes a measured one.
"""

import argparse
import math

from charrnn.benchmarks import report


def parameters(vocab: int, hidden: int, layers: int) -> int:
    """Those of GRUEncode."""
    return vocab * hidden + hidden + layers * 6 * (hidden**2 + hidden) + (hidden + 1) * vocab


def compute(args: argparse.Namespace, rows: float) -> float:
    """Seconds of a window of so many rows on one GPU, all but the averaging."""
    if args.compute is not None:
        return args.compute * 1e-3
    # 2 for each weight forward, 4 backward; an embedding is a look-up.
    operations = 6 * (6 * args.layers * args.hidden**2 + args.hidden * args.vocab)
    arithmetic = operations * rows * args.steps / (args.rate * 1e12)
    chain = 2 * args.steps * args.layers * args.step * 1e-6
    return max(arithmetic, chain, args.host * 1e-3)


def average(args: argparse.Namespace, gpus: int) -> float:
    """Seconds in which the gradients are averaged over so many GPUs."""
    size = 4 * parameters(args.vocab, args.hidden, args.layers)
    inner = min(gpus, args.machine)
    outer = math.ceil(gpus / inner)
    within = 2 * (inner - 1) * (size / inner / (args.inner * 1e9) + args.inner_latency * 1e-6)
    share = size / inner / (args.outer * 1e9)
    between = 2 * (outer - 1) / outer * share + 2 * math.log2(outer) * args.outer_latency * 1e-6
    return within + between


def reckon(args: argparse.Namespace, gpus: int, shared: bool) -> dict[str, float]:
    """One line of the table, with B rows on each GPU, or with those B shared out over all."""
    rows = args.rows / gpus if shared else args.rows
    windows = math.ceil(math.ceil(args.characters / args.steps) / (rows * gpus))
    work, wait = compute(args, rows), average(args, gpus)
    alone = math.ceil(math.ceil(args.characters / args.steps) / args.rows)
    seconds = windows * (work + wait)
    return {
        "gpus": gpus, "rows": rows * gpus, "windows": windows, "compute": work, "average": wait,
        "seconds": seconds, "times": alone * compute(args, args.rows) / seconds,
    }  # fmt: skip


HEADER = ["GPUs", "R", "windows in a pass", "compute ms", "average ms", "s a pass", "times",
          "of ideal"]  # fmt: skip


def parse(line: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def add(name: str, kind: type, default: float | None, words: str) -> None:
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{words} ({default})")

    add("hidden", int, 512, "H")
    add("layers", int, 3, "L")
    add("vocab", int, 96, "V")
    add("rows", int, 1024, "B of a GPU; with shared rows, R")
    add("steps", int, 100, "T")
    add("characters", float, 1e10, "of a pass")
    add("compute", float, None, "ms of a window on one GPU, where it was measured")
    add("rate", float, 40, "TFLOP/s that the matrix products reach")
    add("step", float, 10, "us that a time step of a layer takes at least")
    add("host", float, 2, "ms that the host takes for a window at least")
    add("machine", int, 8, "GPUs of a machine")
    add("inner", float, 150, "GB/s of a GPU within the machine")
    add("inner-latency", float, 3, "us of a step of the ring")
    add("outer", float, 40, "GB/s of a GPU's network card")
    add("outer-latency", float, 10, "us of a step over the network")
    return parser.parse_args(line)


def main() -> None:
    """Print the assumptions and both tables."""
    args = parse()
    size = 4 * parameters(args.vocab, args.hidden, args.layers)
    print("reckoned, not measured, from", *(f"{k}={v}" for k, v in vars(args).items()))
    print(f"{size // 4:,} parameters: {size:,} bytes of gradient a window")
    for shared, words in ((False, "B rows on each GPU"), (True, "R rows over all GPUs")):
        lines = []
        for gpus in (1, 8, 64, 256, 1024):
            r = reckon(args, gpus, shared)
            lines.append([
                str(gpus), f"{r['rows']:,.0f}", f"{r['windows']:,}", f"{1e3 * r['compute']:.2f}",
                f"{1e3 * r['average']:.2f}", f"{r['seconds']:,.0f}", f"{r['times']:,.1f}",
                f"{r['times'] / gpus:.0%}",
            ])  # fmt: skip
        print(f"\n{words}\n{report.table(HEADER, lines)}")


if __name__ == "__main__":
    main()
