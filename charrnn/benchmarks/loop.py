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
import importlib.metadata
import io
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import yaml

from charrnn.benchmarks import report
from charrnn.benchmarks.training import difference
from charrnn.callbacks import Metrics
from charrnn.cli import hydra_internals
from charrnn.cli.arguments import Program
from charrnn.cli.arguments import parse as parse_command
from charrnn.cli.instantiate import instantiate
from charrnn.cli.keys import CONF, conf_yaml
from charrnn.cli.prepare import Job, Run, prepare
from charrnn.cli.train import without_hydra
from charrnn.data.stream import RowStream
from charrnn.gru.optimizer import FusedStep, supports
from charrnn.models import GRUEncode


def prepared(folder: Path, *overrides: str) -> tuple[Run, object]:
    """A run of the train command that starts no round, and its optimizer's constructor."""
    command = parse_command("train", list(overrides), Program(), {})
    with hydra_internals.application("train", CONF, "train", None, None, has_logs=False) as app:
        config = without_hydra(app.compose(list(command.overrides)))
    return prepare(config, Job(folder)), instantiate("optimizer", config.optimizer)


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
        self.fused = FusedStep(self.optimizer) if supports(self.optimizer) else None
        self.carry = model.initial_state(stream.batch_size)

    def __call__(self) -> None:
        window = next(self.windows)
        if window.index == 0:
            self.carry = self.carry.roll(1, dims=1)
        loss, state = self.model.loss(window.inputs, window.targets, self.carry)
        self.carry, self.loss = state.detach(), loss.detach()
        self.optimizer.zero_grad()
        loss.backward()
        if self.fused is not None and self.fused(self.decay, self.clip):
            return
        with torch.no_grad():
            torch._foreach_add_([w.grad for w in self.weights], self.weights, alpha=self.decay)
        torch.nn.utils.clip_grad_value_(self.parameters, self.clip)
        self.optimizer.step()


class Turns(Metrics):
    """Runs the bare loop for as many windows after each ``turn`` windows of fit; times both.

    It stands where the callback that writes the metrics stands, and writes them.
    """

    def __init__(self, bare: Bare, turn: int, seconds: float):
        super().__init__()
        self.bare, self.turn, self.seconds = bare, turn, seconds
        self.times: dict[str, list[float]] = {"fit": [], "bare": []}  # seconds per window
        self.difference = 0.0

    def on_train_start(self, trainer, task) -> None:
        super().on_train_start(trainer, task)
        self.end = time.perf_counter() + self.seconds
        self.start = None

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, task, outputs, batch, batch_idx)
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


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Measure windows of both in turns."""
    file, never = folder / "text.txt", 10**9
    file.write_text(yaml.safe_dump(list(range(300_000))), "utf-8")  # any content
    run, optimizer = prepared(
        folder, f"data.path={file}", f"data.cache_dir={folder}", "data.train_fraction=1",
        f"data.batch_size={args.rows}", f"data.seq_len={args.steps}",
        f"model.hidden_size={args.hidden}", f"model.num_layers={args.layers}",
        f"model.backend={args.backend}", "trainer.max_epochs=-1", "trainer.accelerator=cpu",
        f"trainer.limit_train_batches={never}", f"callbacks.samples.every_n_steps={never}",
        "callbacks.samples.early=null", f"callbacks.checkpoint.every_n_steps={never}",
    )  # fmt: skip
    task, trainer, model = run.task, run.trainer, run.task.model
    stream = RowStream(run.data.stream.tokens, args.rows, args.steps)
    window = next(iter(stream))
    backend = model.gru.choose_backend(torch.device("cpu"))
    if not (error := difference(model, window.inputs, window.targets)) < 1e-3:
        sys.exit(f"error: backend {backend} is {error:.1e} off the reference")
    stream.load_state_dict({"window": 0, "passes": 0})
    bare = Bare(copy.deepcopy(model), stream, task.l2, trainer.gradient_clip_val, optimizer)
    turns = Turns(bare, args.turn, args.seconds)
    trainer.callbacks = [turns if type(c) is Metrics else c for c in trainer.callbacks]
    trainer.fit(task, run.data)
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
    model, data = conf_yaml("model/gru_encode"), conf_yaml("data/text")
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
    about = report.machine(torch.device("cpu")) | {
        "lightning": importlib.metadata.version("pytorch-lightning")
    }
    size = f"{args.hidden},{args.layers},{args.rows},{args.steps}"
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"in turns of {args.turn} windows\n", flush=True)
    screen = Terminal()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice, as in the train command
        with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen):
            result = measure(args, Path(folder))
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
