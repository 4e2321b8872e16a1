"""Overhead of trainer.fit over a bare training loop: python -m charrnn.benchmarks.loop

T time steps, B rows, H hidden size, L layers.

Both run in one process in turns of some windows. One is trainer.fit with the task, data, callbacks,
logger and progress bar of the train command; the other is only the model, the stream and the
optimizer, with the same L2, clipping and carry. Both start from the same weights on the same text,
and their losses are compared at every turn. Checkpoints, samples and validations, which occur every
few hundred windows, do not count.
"""

import argparse
import contextlib
import copy
import functools
import io
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import TensorBoardLogger

from charrnn import callbacks
from charrnn.benchmarks import report
from charrnn.benchmarks.training import difference
from charrnn.cli.keys import CONF
from charrnn.data.datamodule import CharDataModule
from charrnn.data.stream import RowStream
from charrnn.models import GRUEncode
from charrnn.training import schedulers
from charrnn.training.task import CharTask


def settings(name: str) -> dict:
    """Read a file of conf without the keys that only Hydra reads."""
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))
    return {k: v for k, v in content.items() if k not in ("_target_", "_partial_", "defaults")}


class Terminal(io.StringIO):
    """A stream for the progress bar, which is drawn on terminals only."""

    def isatty(self) -> bool:
        return True


class Bare:
    """The bare loop; a call trains on one window."""

    def __init__(self, model: GRUEncode, stream: RowStream, l2: float, clip: float, optimizer):
        self.model, self.windows, self.clip = model, iter(stream), clip
        self.parameters = list(model.parameters())
        self.weights = [p for p in self.parameters if p.dim() > 1]
        self.decay = l2 / (stream.batch_size * stream.seq_len)
        self.optimizer = optimizer(self.parameters)
        self.carry = model.initial_state(stream.batch_size)

    def __call__(self) -> None:
        window = next(self.windows)
        if window.index == 0:
            self.carry = self.carry.roll(1, dims=1)
        loss, state = self.model.loss(window.inputs, window.targets, self.carry)
        self.carry, self.loss = state.detach(), loss.detach()
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            torch._foreach_add_([w.grad for w in self.weights], self.weights, alpha=self.decay)
        torch.nn.utils.clip_grad_value_(self.parameters, self.clip)
        self.optimizer.step()


class Turns(pl.Callback):
    """Runs the bare loop for as many windows after each ``turn`` windows of fit; times both."""

    def __init__(self, bare: Bare, turn: int, seconds: float):
        self.bare, self.turn, self.seconds = bare, turn, seconds
        self.times: dict[str, list[float]] = {"fit": [], "bare": []}  # seconds per window
        self.difference = 0.0

    def on_train_start(self, trainer, task) -> None:
        self.end = time.perf_counter() + self.seconds
        self.start = None

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step % self.turn:
            return
        now = time.perf_counter()
        for _ in range(self.turn):
            self.bare()
        after = time.perf_counter()
        if self.start is not None:  # the first turn only warms up
            self.times["fit"].append((now - self.start) / self.turn)
            self.times["bare"].append((after - now) / self.turn)
        loss = self.bare.loss.item()
        self.difference = max(self.difference, abs(task.window_loss.item() / loss - 1))
        trainer.should_stop = after > self.end and len(self.times["fit"]) >= 5
        self.start = time.perf_counter()


def measure(args: argparse.Namespace, folder: str) -> dict:
    """Measure windows of both in turns."""
    torch.manual_seed(1)
    file = Path(folder) / "text.txt"
    text = yaml.safe_dump(list(range(300_000)))  # any content
    file.write_text(text, "utf-8")
    data = CharDataModule(
        str(file), batch_size=args.rows, seq_len=args.steps, cache_dir=folder, train_fraction=1
    )
    model = GRUEncode(len(data.corpus.charset), args.hidden, args.layers, backend=args.backend)
    window = next(iter(data.stream))
    backend = model.gru.choose_backend(torch.device("cpu"))
    if not (error := difference(model, window.inputs, window.targets)) < 1e-3:
        sys.exit(f"error: backend {backend} is {error:.1e} off the reference")
    data.stream.load_state_dict({"window": 0, "passes": 0})
    optimizer = functools.partial(torch.optim.RMSprop, **settings("optimizer/rmsprop"))
    train = settings("train")
    train["trainer"] |= {"max_epochs": -1, "limit_train_batches": 10**9}
    target = train["trainer"].pop("_target_")
    assert target == "pytorch_lightning.Trainer"
    l2 = train["task"]["l2"]
    clip = train["trainer"]["gradient_clip_val"]
    stream = RowStream(data.stream.tokens, args.rows, args.steps)
    turns = Turns(Bare(copy.deepcopy(model), stream, l2, clip, optimizer), args.turn, args.seconds)
    never = 10**9  # samples and checkpoints only before the first window
    task = CharTask(model, optimizer, schedulers.Adaptive, l2=l2)
    task.description = {"settings": {}, "charset": data.corpus.charset.state_dict()}
    ours = [callbacks.Metrics(), callbacks.Samples(never), callbacks.Progress(), turns]
    ours.append(callbacks.Checkpoint(never))
    logger = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
    trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=folder, logger=logger, callbacks=ours,
        **train["trainer"],
    )  # fmt: skip
    trainer.fit(task, data)
    if not turns.difference < 1e-3:
        sys.exit(f"error: the losses of the two loops are {turns.difference:.1e} apart")
    times = turns.times
    over = [100 * (a / b - 1) for a, b in zip(times["fit"], times["bare"])]
    return {
        "backend": backend,
        "difference": turns.difference,
        "count": len(over),
        "milliseconds": {n: [1e3 * q for q in report.quartiles(v)] for n, v in times.items()},
        "percent_over": report.quartiles(over),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model, data = settings("model/gru_encode"), settings("data/text")
    parser.add_argument("--hidden", type=int, default=model["hidden_size"], help="H")
    parser.add_argument("--layers", type=int, default=model["num_layers"], help="L")
    parser.add_argument("--rows", type=int, default=data["batch_size"], help="B")
    parser.add_argument("--steps", type=int, default=data["seq_len"], help="T")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--turn", type=int, default=20, help="windows of each turn")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, help="default: chosen by torch")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(arguments)


HEADER = ["H,L,B,T", "backend", "fit ms", "bare ms", "over % (quartiles)", "turns"]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    about = report.machine(torch.device("cpu")) | {"lightning": pl.__version__}
    size = f"{args.hidden},{args.layers},{args.rows},{args.steps}"
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"in turns of {args.turn} windows\n", flush=True)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    screen = Terminal()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice, as in the train command
        with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen):
            result = measure(args, folder)
    row = [
        size,
        result["backend"],
        f"{result['milliseconds']['fit'][1]:.2f}",
        f"{result['milliseconds']['bare'][1]:.2f}",
        "{1:.1f} ({0:.1f} to {2:.1f})".format(*result["percent_over"]),
        str(result["count"]),
    ]
    print(report.table(HEADER, [row]))
    report.write_json(args.json, about | vars(args), [result])


if __name__ == "__main__":
    main()
