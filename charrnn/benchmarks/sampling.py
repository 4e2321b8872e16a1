"""Characters per second in sampling: python -m charrnn.benchmarks.sampling [--size H,L] ...

V vocabulary size, H hidden size, L layers, B samples.

"Ours" is a whole call of the sampler, from the model to strings. The baseline calls torch.nn.GRU
step by step in inference mode, then softmax and multinomial. Both run in turns in one process. The
table has medians, and quartiles of the ratios of adjacent turns. First our text is compared with
that of the reference backend in float64, and the baseline's logits with ours.

"share" is the fraction of the rate of the machine's best torch.mm. The closer a single sample comes
to it, the less several samples at once can gain.
"""

import argparse
import copy
import functools
import itertools
import sys

import numpy as np
import torch
from torch import Tensor

from charrnn import generation
from charrnn.benchmarks import report
from charrnn.benchmarks.training import Baseline, operations
from charrnn.data.charset import Charset
from charrnn.gru import BACKENDS, RESETS
from charrnn.models import GRUEncode

SIZES = ((128, 2), (512, 2))
CHECKED = 50  # characters compared


class EagerLoop:
    """The baseline; a call draws ``steps`` characters for each sample."""

    def __init__(self, model: GRUEncode, samples: int, steps: int):
        size, hidden = model.decoder.weight.shape
        self.model = Baseline(torch.nn.GRU, size, hidden, model.gru.num_layers).eval()
        state = {k.replace("gru.", "rnn.", 1): v for k, v in model.state_dict().items()}
        state["bias"] = state.pop("embed.bias")
        self.model.load_state_dict(state)
        self.samples, self.steps = samples, steps

    def logits(self, index: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map indices (1, B) and a state (L, B, H) to logits (B, V) and the next state."""
        model = self.model
        output, state = model.rnn(torch.tanh(model.embed(index) + model.bias), state)
        return model.decoder(output[0]), state

    @torch.inference_mode()
    def __call__(self) -> None:
        state = self.model.initial_state(self.samples)
        index = torch.zeros(1, self.samples, dtype=torch.long)
        for _ in range(self.steps):
            logits, state = self.logits(index, state)
            index = torch.multinomial(logits.softmax(-1), 1).t()


def first_indices(model: GRUEncode, charset: Charset, samples: int) -> Tensor:
    """Return the first indices of samples, (CHECKED, B)."""
    start = charset.encode("\n")
    steps = generation.generate_indices(model, charset, start, samples, 0)
    return torch.stack(list(itertools.islice(steps, CHECKED)))


@torch.inference_mode()
def difference(
    model: GRUEncode, baseline: EagerLoop | None, charset: Charset, samples: int
) -> float:
    """Return the relative difference of the baseline's logits; infinite if our texts differ."""
    exact = copy.deepcopy(model).double()
    found = first_indices(exact, charset, samples)
    exact.gru.backend = "reference"
    if not found.equal(first_indices(exact, charset, samples)):
        return float("inf")
    if baseline is None:
        return 0.0
    state, worst = model.initial_state(samples), 0.0
    ours, _ = model(found, state)
    for index, logits in zip(found, ours):
        theirs, state = baseline.logits(index[None], state)
        worst = max(worst, ((theirs - logits).norm() / logits.norm()).item())
    return worst


def measure(size: tuple[int, int], samples: int, args: argparse.Namespace, rate: float) -> dict:
    """Measure one row of the table."""
    torch.manual_seed(0)
    charset = Charset("\n" + "".join(map(chr, range(0x4E00, 0x4E00 + args.vocab - 2))))
    model = GRUEncode(len(charset), *size, reset=args.reset, backend=args.backend).eval()
    torch.nn.init.normal_(model.decoder.weight, std=2 * size[0] ** -0.5)
    eager_steps = max(10, args.length // (10 if samples == 1 else 40))
    baseline = EagerLoop(model, samples, eager_steps) if args.reset == "after" else None
    error = difference(model, baseline, charset, samples)
    backend = model.gru.choose_backend(torch.device("cpu"))
    if not error < 1e-3:
        sys.exit(f"error: backend {backend} is {error:.1e} off at {size}, {samples} samples")

    def ours(precision=args.precision):
        settings = {"seed": 0, "precision": precision}
        for _ in generation.generate_texts(model, charset, "", args.length, samples, **settings):
            pass

    runs = {"ours": ours} | ({} if baseline is None else {"baseline": baseline})
    if args.precision != 32:
        runs["ours 32"] = functools.partial(ours, 32)
    times = report.alternate(runs, args.seconds, lambda: None)
    step = {"ours": args.length, "baseline": eager_steps, "ours 32": args.length}
    times = {name: [1e6 * t / step[name] for t in values] for name, values in times.items()}
    median = {name: report.quartiles(values)[1] for name, values in times.items()}
    flops = operations(args.vocab, *size) / 3  # training computes each product three times
    return {
        "hidden_size": size[0],
        "num_layers": size[1],
        "num_samples": samples,
        "reset": args.reset,
        "backend": backend,
        "precision": args.precision,
        "times_32": report.quartiles([b / a for a, b in zip(times["ours"], times["ours 32"])])
        if "ours 32" in times
        else None,
        "difference": error,
        "count": len(times["ours"]),
        "microseconds_per_step": median,
        "quartiles": {name: report.quartiles(values) for name, values in times.items()},
        "ratio": report.quartiles([b / a for a, b in zip(times["ours"], times["baseline"])])
        if baseline
        else None,
        "characters_per_second": samples / median["ours"] * 1e6,
        "flop_per_character": flops,
        "share": flops * samples / median["ours"] * 1e6 / rate,
    }


HEADER = ["H,L,B", "reset", "backend", "ours us", "nn.GRU us", "ratio (quartiles)", "chars/s",
          "of one", "times 32 bits", "share", "turns"]  # fmt: skip


def as_row(result: dict, of_one: float) -> list[str]:
    """Format a result as a row; ``of_one`` is its rate over that of one sample."""
    ratio = result["ratio"]
    baseline = result["microseconds_per_step"].get("baseline")
    return [
        "{hidden_size},{num_layers},{num_samples}".format(**result),
        result["reset"],
        result["backend"],
        f"{result['microseconds_per_step']['ours']:.1f}",
        f"{baseline:.0f}" if ratio else "-",
        "{1:.1f} ({0:.1f}-{2:.1f})".format(*ratio) if ratio else "-",
        f"{result['characters_per_second']:,.0f}",
        f"{of_one:.1f}",
        "{1:.2f} ({0:.2f}-{2:.2f})".format(*result["times_32"]) if result["times_32"] else "-",
        f"{result['share']:.2f}",
        str(result["count"]),
    ]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""

    def size(text: str) -> tuple[int, ...]:
        hidden, layers = map(int, text.split(","))
        return hidden, layers

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=size, action="append", metavar="H,L")
    parser.add_argument("--samples", type=int, action="append", metavar="B", help="1 is first")
    parser.add_argument("--reset", choices=RESETS, default="after")
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    parser.add_argument("--precision", type=int, choices=[32, 16, 8], default=32, help="of weights")
    parser.add_argument("--vocab", type=int, default=96)
    parser.add_argument("--length", type=int, default=1000, help="characters of a sample")
    parser.add_argument("--seconds", type=float, default=15, help="for each row of the table")
    parser.add_argument("--threads", type=int, help="default: chosen by torch")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    about = report.machine(torch.device("cpu"))
    rate, largest = report.multiply_rate(torch.device("cpu"), min(1.0, args.seconds))
    about |= {"numpy": np.__version__, "vocab_size": args.vocab, "length": args.length}
    about |= {"multiply_rate": rate}
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print("us: for one step of all B samples; of one: characters/s relative to one sample")
    print(f"share: of {rate / 1e9:.0f} GFLOP/s, the best torch.mm, of {largest} x {largest}\n")
    results, rows = [], []
    for size in args.size or SIZES:
        one = None
        for samples in args.samples or (1, 64):
            results.append(measure(size, samples, args, rate))
            one = one or results[-1]["characters_per_second"] / samples
            rows.append(as_row(results[-1], results[-1]["characters_per_second"] / one))
    print(report.table(HEADER, rows))
    report.write_json(args.json, about, results)


if __name__ == "__main__":
    main()
