"""Characters per second in training: python -m charrnn.benchmarks.training [--size H,L,B] ...

T time steps, B rows, V vocabulary size, H hidden size, L layers.

A step is forward, backward, clipping to +-5 and RMSProp, on random characters. Our model runs in
turns of 0.2 s, in one process, with baselines that use torch.nn.GRU and torch.nn.LSTM. The table
has medians, and quartiles of the ratios of adjacent turns. Loss and gradients are first compared
with those of the reference backend in float32. With --precision bf16-mixed our model in 32-true
takes its turn too. On a GPU our step is a CUDA graph, and runs in turns with itself without one
and with torch.nn.GRU with and without, in the same --precision.
"""

import argparse
import copy
import sys

import torch
from torch import Tensor, nn

from charrnn.benchmarks import report
from charrnn.benchmarks.steps import PRECISIONS, Baseline, Training, autocast
from charrnn.gru import BACKENDS
from charrnn.models import GRUEncode

SIZES = ((128, 2, 16), (256, 2, 16), (512, 2, 64), (512, 3, 128))


def difference(model: GRUEncode, inputs: Tensor, targets: Tensor, precision="32-true"):
    """Return the largest relative difference of loss and gradients to the float32 reference."""
    found = []
    chosen, state = model.gru.backend, model.initial_state(inputs.size(1))
    for backend, type_name in ((chosen, precision), ("reference", "32-true")):
        model.gru.backend = backend
        with autocast(inputs.device, type_name):
            loss, _ = model.loss(inputs, targets, state)
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    model.gru.backend = chosen
    return max(
        ((a.detach() - b.detach()).norm() / (b.detach().norm() + 1e-12)).item()
        for a, b in zip(*found)
    )


def operations(vocab_size: int, hidden_size: int, layers: int) -> int:
    """Count the floating-point operations per character of a training step.

    Only matrix products count, with two operations for a multiply-add. Layer 0 has no input product
    (it is computed for V characters, not for T * B), the other layers have two of (3H, H), and the
    decoder one of (V, H). Each is computed once forward and twice backward.
    """
    return 3 * 2 * ((6 * layers - 3) * hidden_size**2 + hidden_size * vocab_size)


def contestants(ours: GRUEncode, size: tuple, inputs: Tensor, targets: Tensor, args) -> dict:
    """Return what runs in turns, ours first."""
    hidden, layers, _ = size
    device, window = inputs.device, (inputs, targets, args.precision)
    if device.type == "cpu":
        kinds = {"nn.GRU": nn.GRU, "nn.LSTM": nn.LSTM}
        baselines = {n: Baseline(k, args.vocab, hidden, layers) for n, k in kinds.items()}
        runs = {n: Training(m, *window) for n, m in ({"ours": ours} | baselines).items()}
        if args.precision != "32-true":
            runs["ours 32-true"] = Training(copy.deepcopy(ours), inputs, targets)
        return runs
    baselines = [Baseline(nn.GRU, args.vocab, hidden, layers).to(device) for _ in range(2)]
    return {
        "ours": Training(copy.deepcopy(ours), *window, graph=True),
        "ours eager": Training(ours, *window),
        "GRU eager": Training(baselines[0], *window),
        "GRU graph": Training(baselines[1], *window, graph=True),
    }


def measure(size: tuple[int, int, int], reset: str, args: argparse.Namespace, rate: float) -> dict:
    """Measure one row of the table."""
    hidden, layers, rows = size
    device = torch.device(args.device)
    torch.manual_seed(0)
    inputs, targets = torch.randint(args.vocab, (2, args.steps, rows), device=device)
    ours = GRUEncode(args.vocab, hidden, layers, reset=reset, backend=args.backend).to(device)
    backend = ours.gru.choose_backend(device, rows)
    error = difference(ours, inputs[:20], targets[:20], args.precision)
    tolerance = 1e-3 if device.type == "cpu" else 1e-2  # products of halves
    if not error < (tolerance if args.precision == "32-true" else 2e-2):
        sys.exit(f"error: backend {backend} is {error:.1e} off the reference at {size}, {reset}")
    runs = contestants(ours, size, inputs, targets, args)
    times = report.alternate(runs, args.seconds, report.synchronizer(device))
    characters = args.steps * rows
    flops = operations(args.vocab, hidden, layers)
    medians = {name: report.quartiles(values)[1] for name, values in times.items()}
    return {
        "hidden_size": hidden,
        "num_layers": layers,
        "batch_size": rows,
        "reset": reset,
        "backend": backend,
        "difference": error,
        "count": len(times["ours"]),
        "milliseconds": {name: 1e3 * value for name, value in medians.items()},
        "quartiles": {n: [1e3 * q for q in report.quartiles(v)] for n, v in times.items()},
        "ratios": {
            name: report.quartiles([b / a for a, b in zip(times["ours"], times[name])])
            for name in runs
            if name != "ours"
        },
        "characters_per_second": characters / medians["ours"],
        "flop_per_character": flops,
        "share": flops * characters / medians["ours"] / rate,
    }


def as_row(result: dict) -> list[str]:
    """Format a result as a row of the table."""
    ratios = [f"{m:.2f} ({a:.2f}-{b:.2f})" for a, m, b in result["ratios"].values()]
    return [
        "{hidden_size},{num_layers},{batch_size}".format(**result),
        result["reset"],
        result["backend"],
        *(f"{value:.2f}" for value in result["milliseconds"].values()),
        *ratios,
        f"{result['characters_per_second']:,.0f}",
        f"{result['flop_per_character'] / 1e6:.2f}",
        f"{result['share']:.2f}",
        str(result["count"]),
    ]


def header(names: list[str]) -> list[str]:
    """The titles of the columns."""
    return [
        "H,L,B", "reset", "backend", *(f"{name} ms" for name in names),
        *(f"{name}/ours (quartiles)" for name in names[1:]),
        "chars/s", "MFLOP/char", "share", "turns",
    ]  # fmt: skip


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""

    def size(text: str) -> tuple[int, ...]:
        hidden, layers, rows = map(int, text.split(","))
        return hidden, layers, rows

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=size, action="append", metavar="H,L,B")
    parser.add_argument("--reset", choices=["after", "before", "both"], default="both")
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    parser.add_argument("--vocab", type=int, default=96)
    parser.add_argument("--steps", type=int, default=100, help="T")
    parser.add_argument("--seconds", type=float, default=8, help="for each row of the table")
    parser.add_argument("--threads", type=int, help="default: chosen by torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    about = report.machine(device)
    rate, largest = report.multiply_rate(device, min(1.0, args.seconds))
    about |= {
        "precision": args.precision,
        "vocab_size": args.vocab,
        "steps": args.steps,
        "multiply_rate": rate,
    }
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"share: of {rate / 1e9:.0f} GFLOP/s, the best torch.mm, of {largest} x {largest}\n")
    results = []
    for size in args.size or SIZES:
        for reset in ("after", "before") if args.reset == "both" else (args.reset,):
            results.append(measure(size, reset, args, rate))
    print(
        report.table(
            header(list(results[0]["milliseconds"])), [as_row(result) for result in results]
        )
    )
    report.write_json(args.json, about, results)


if __name__ == "__main__":
    main()
