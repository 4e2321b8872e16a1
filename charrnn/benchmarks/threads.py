"""Training steps beside busy processes: python -m charrnn.benchmarks.threads [--way import] ...

T time steps, B rows, V vocabulary size, H hidden size, L layers.

Each way to train runs in a process of its own with one and with two threads, while none, one and
two other processes compute without end. Ways: a program that imports charrnn.GRUEncode and trains
it with torch.optim, the same with the model of charrnn.load, charrnn.train in Python, and the train
command. The table has medians of milliseconds a window, and their ratio to one thread without
neighbours; then the speed of two such runs at once together, as a fraction of twice that of one
run on one thread.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import charrnn
from charrnn.benchmarks import report

BUSY = "while True: pass"
WAYS = ("import", "load", "train", "command")


def own_loop(model: nn.Module, rows: int, seconds: float) -> list[float]:
    """Train a model in a plain loop with torch's optimizer; milliseconds of each step."""
    torch.manual_seed(0)
    size = model.decoder.out_features
    inputs, targets = torch.randint(size, (2, 100, rows))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.95)
    state, times, start = model.initial_state(rows), [], time.perf_counter()
    while time.perf_counter() < start + seconds:
        begin = time.perf_counter()
        loss, _ = model.loss(inputs, targets, state)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 5.0)
        optimizer.step()
        times.append(1e3 * (time.perf_counter() - begin))
    return times[5:]


def settings(size: tuple, folder: Path, *more: str) -> list[str]:
    """Settings of a run on a text, without samples and checkpoints in between."""
    hidden, layers, rows = size
    never = 10**9
    return [
        f"data.path={folder / 'text.txt'}", f"data.cache_dir={folder}", "data.train_fraction=1",
        f"model.hidden_size={hidden}", f"model.num_layers={layers}", f"data.batch_size={rows}",
        "trainer.max_epochs=-1", "trainer.accelerator=cpu", "callbacks.samples.early=null",
        f"trainer.limit_train_batches={never}", f"callbacks.samples.every_n_steps={never}",
        f"callbacks.checkpoint.every_n_steps={never}", "~callbacks.report", *more,
    ]  # fmt: skip


def child(way: str, size: tuple, folder: Path, seconds: float) -> list[float]:
    """Train one way in this process; milliseconds of each step, or means of some windows."""
    if way == "import":
        return own_loop(charrnn.GRUEncode(96, size[0], size[1]), size[2], seconds)
    if way == "load":
        return own_loop(charrnn.load(folder / "saved").model, size[2], seconds)
    run = folder / f"{way}{time.time_ns()}"
    limit = f"trainer.max_time=00:00:00:{round(seconds):02}"
    given = settings(size, folder, limit, f"hydra.run.dir={run}")
    with contextlib.redirect_stdout(sys.stderr):
        if way == "train":
            charrnn.train(overrides=given)
        else:
            command = [sys.executable, "-m", "charrnn", "train", *given]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(run / "metrics.csv", encoding="utf-8") as file:
        rates = [row["train/chars_per_second"] for row in csv.DictReader(file)]
    return [1e5 * size[2] / float(rate) for rate in rates[1:] if rate]


def measure(way: str, threads: int, neighbours: int, args, folder: Path, at_once: int = 1) -> dict:
    """Run one way in a process of its own, or several at once, beside busy processes."""
    given = ["--size", ",".join(map(str, args.size)), "--seconds", str(args.seconds)]
    module = "charrnn.benchmarks.threads"
    command = [sys.executable, "-m", module, "--child", way, str(folder), *given]
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(neighbours)]
    try:
        children = [
            subprocess.Popen(
                command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )
            for _ in range(at_once)
        ]  # fmt: skip
        found = [child.communicate()[0].splitlines()[-1] for child in children]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    medians = [report.quartiles(json.loads(line)) for line in found]
    result = {"way": way, "threads": threads, "neighbours": neighbours, "at_once": at_once}
    return result | {"milliseconds": medians[0], "medians": [median for _, median, _ in medians]}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split(","))),
                        default=(128, 2, 16), metavar="H,L,B")  # fmt: skip
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--neighbours", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=8, help="for each number of the table")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    args = parse(arguments)
    if args.child:
        way, folder = args.child
        print(json.dumps(child(way, args.size, Path(folder), args.seconds)))
        return
    about = report.machine(torch.device("cpu"))
    print(*(f"{key}: {value}" for key, value in about.items() if key != "threads"), sep="\n")
    ways, threads = args.way or WAYS, args.threads or (1, 2)
    neighbours = args.neighbours or (0, 1, 2)
    rows, results = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text("\n".join(map(str, range(300_000))), "utf-8")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            saved = f"hydra.run.dir={folder / 'saved'}"
            charrnn.train(overrides=settings(args.size, folder, saved, "trainer.max_steps=1"))
        for way in ways:
            alone = None
            for count in threads:
                found = [measure(way, count, n, args, folder) for n in neighbours]
                results += found
                medians = [result["milliseconds"][1] for result in found]
                alone = alone or medians[0]
                cells = [f"{value:.2f} ({value / alone:.2f})" for value in medians]
                pair = measure(way, count, 0, args, folder, 2)
                results.append(pair)
                speed = sum(alone / median for median in pair["medians"]) / 2
                rows.append([way, str(count), *cells, f"{speed:.2f}"])
    titles = [f"{n} busy: ms (ratio)" for n in neighbours]
    print("\n" + report.table(["way", "threads", *titles, "two at once"], rows))
    report.write_json(args.json, about, results)


if __name__ == "__main__":
    main()
