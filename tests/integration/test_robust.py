"""Tried hard: configurations, right and wrong, and checkpoints of which bytes were changed."""

import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT, TEXT, TINY, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import saved_model as make

import charrnn
from charrnn import GRUEncode, GRUResize, InputError, checkpoint
from charrnn.checkpoint.serialization import save

# Configurations: keys with values that they take, and with values that they may not.

VALUES = {
    "data.batch_size": [1, 3, 0, -1, "two", 1.5, "null", "[1]"],
    "data.seq_len": [1, 7, 0, "", "1e3"],
    "data.train_fraction": [0.5, 1, 0, 2, "nan", "half"],
    "data.unit": ["char", "byte", "word", "null", 3],
    "data.max_bytes": [100, "null", 1, "many"],
    "data.path": ["text.txt", "missing.txt", "*.none", "[]", "[text.txt,text.txt]", "null", "."],
    "model": ["gru_encode", "gru_resize", "lstm", "null", ""],
    "model.hidden_size": [1, 8, 0, "null", "{a:1}", "'8'"],
    "model.num_layers": [1, 3, 0, "x"],
    "model.dropout": [0, 0.5, 1, -0.1, "nan", "true"],
    "model.reset": ["before", "after", "never"],
    "model.gate": ["sigmoid", "hard_sigmoid", "soft"],
    "model.backend": ["auto", "reference", "torch", "cuda"],
    "model._target_": ["os.system", "charrnn.models.GRUResize", "charrnn.models.Nothing", 3],
    "optimizer": ["rmsprop", "adam", "adamw", "sgd", "lion"],
    "optimizer.lr": [0.1, 1e-5, 0, -1, "inf", "nan", "fast", "null"],
    "optimizer.alpha": [0.5, 2, "x"],
    "optimizer.betas": ["[0.5,0.5]", "[0.5]", "[2,2]", 1],
    "scheduler": ["constant", "cosine", "plateau", "adaptive", "none"],
    "scheduler.factor": [0.5, 2, -1, "x"],
    "scheduler.warmup_steps": [0, 5, -1, "x"],
    "task.l2": [0, 0.1, -1, "inf", "nan", "x"],
    "task.reduction": ["mean", "sum", "max"],
    "task.rollover": ["roll", "reset", "carry", "flip"],
    "task.on_divergence": ["stop", "rollback", "cry"],
    "task.spike_factor": [2, "null", 1, 0, "nan"],
    "task.rollback_factor": [0.5, 1, 0, 2],
    "task.max_rollbacks": [0, 3, -1, 1.5],
    "task": ["null", 3],
    "trainer.max_epochs": [1, 2, 0, "null", "x"],
    "trainer.max_steps": [1, -1, 0, "x"],
    "trainer.limit_train_batches": [3, 0.5, 1.0, 0, -1, "x"],
    "trainer.limit_val_batches": [1, 0, 0.5, 1e-9, -1],
    "trainer.val_check_interval": [1, 2, 0.5, 0, 999, "x"],
    "trainer.gradient_clip_val": [1, 0, "null", -1, "x"],
    "trainer.gradient_clip_algorithm": ["value", "norm", "cut"],
    "trainer.log_every_n_steps": [1, 0, "x"],
    "trainer.precision": ["32-true", "7"],
    "trainer.nothing": [1],
    "callbacks.samples": ["null", 3],
    "callbacks.samples.temperature": [0, 1, -1, "warm"],
    "callbacks.samples.prompt": ["a", "''", "${seed}", "\x1b[2J", "{", "[,"],
    "callbacks.checkpoint.every_n_steps": [1, 0, "x"],
    "callbacks.checkpoint.keep": [1, "null", 0],
    "callbacks.checkpoint.on_error": ["retry", "stop", "go"],
    "+callbacks.mine": ["{_target_: os.system}", "{}", "null", "{_target_: pathlib.Path}"],
    "seed": [1, 0, -1, "x", 2**64],
    "experiment": ["smoke", "classic", "none"],
    "allow_targets": ["[]", "[os]", "os", "null"],
    "init_from": ["null", "missing", "text.txt", "."],
    "~data": [""],
    "~model.hidden_size": [""],
    "++model.hidden_size": [8, "x"],
    "+new": [1],
    "nonsense": ["a"],
    "${seed}": ["1"],
    "": ["1"],
}
known = st.sampled_from(sorted(VALUES)).flatmap(
    lambda key: st.sampled_from(VALUES[key]).map(lambda value: f"{key}={value}".rstrip("="))
)
strange = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).filter(
    lambda text: not text.startswith("-") and "hydra" not in text and "resume" not in text
)
overrides = st.lists(st.one_of(known, known, known, known, strange), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained):
    """A folder with a text, in which this process composes configurations as train.py does."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "text.txt").write_text(TEXT[:900], "utf-8")
    before, path = os.getcwd(), sys.path[:]
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    yield folder
    os.chdir(before)
    sys.path[:] = path


def outcome(function, *arguments):
    """The code with which a process would end, and what it would print to standard error."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            function(*arguments)
            code = 0
        except SystemExit as end:
            code = end.code
    return code, error.getvalue()


def compose(folder, given):
    """All that a run is made of, as the command makes it before the run's folder."""
    from charrnn.cli import hydra_internals
    from charrnn.cli.arguments import Program, parse
    from charrnn.cli.errors import one_line_errors
    from charrnn.cli.keys import CONF
    from charrnn.cli.prepare import Job, prepare

    with one_line_errors():
        command = parse("train", given, Program(), {})
    with (
        one_line_errors(command),
        hydra_internals.application("train", CONF, "train", None, None) as app,
    ):
        config = app.compose(list(command.overrides), multirun=False)
        prepare(hydra_internals.without_hydra(config), Job(folder / "run"))


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(overrides)
def test_any_configuration_is_a_run_or_one_line(folder, given):
    code, error = outcome(compose, folder, ["data.path=text.txt", *TINY, *given])
    lines = [line for line in error.splitlines() if not line.startswith("charrnn: ")]
    if code:
        assert code == 2 and len(lines) == 1 and lines[0].startswith("error: "), (given, error)
        assert len(lines[0]) > len("error: ") + 3
    assert sorted(f.name for f in folder.iterdir()) == ["text.txt"]


# A few of them as processes that also train.
RUNS = (
    "model=gru_resize model.reset=before model.gate=hard_sigmoid model.dropout=0.5 data.unit=byte",
    "data.batch_size=1 data.seq_len=1 model.hidden_size=1 model.num_layers=3 optimizer=adam",
    "optimizer=sgd scheduler=cosine task.rollover=reset task.reduction=sum data.train_fraction=1",
    "callbacks.samples=null trainer.val_check_interval=0.5 task.spike_factor=50 scheduler=plateau",
)


@pytest.mark.parametrize("given", RUNS)
def test_configurations_that_train(command, tmp_path, given):
    (tmp_path / "text.txt").write_text(TEXT[:900], "utf-8")
    result = command(
        "train.py", "data.path=text.txt", *TINY, *given.split(), "trainer.max_epochs=1",
        "trainer.limit_train_batches=4", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err


# Checkpoints


@pytest.fixture(scope="module")
def files(tmp_path_factory, trained):
    """A run's checkpoint and an exported model: bytes, and what they hold."""
    from charrnn.export import export

    folder = tmp_path_factory.mktemp("files")
    last = trained / "checkpoints" / "last.ckpt"
    weights = export(last, "safetensors", folder / "model.safetensors")
    return folder, {
        file.suffix: (file.read_bytes(), checkpoint.read(file)) for file in (last, weights)
    }


mutations = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "double", "insert", "swap"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


def mutate(data, changes):
    data = bytearray(data)
    for kind, position, value in changes:
        at = int(position * len(data))
        if kind == "flip":
            data[at : at + 1] = bytes(b ^ (1 << value % 8) for b in data[at : at + 1])
        elif kind == "set":
            data[at : at + 1] = bytes([value])[: len(data[at : at + 1])]
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + value]
        elif kind == "double":
            data[at:at] = data[at : at + value]
        elif kind == "insert":
            data[at:at] = bytes([value])
        else:
            data[at : at + 64] = data[at : at + 64][::-1]
    return bytes(data)  # fmt: skip


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_changed_bytes_are_an_error_or_change_nothing(files, suffix):
    folder, found = files
    data, whole = found[suffix]
    file = folder / f"changed{suffix}"

    @settings(max_examples=150, deadline=2000, derandomize=True)
    @given(mutations)
    def check(changes):
        file.write_bytes(mutate(data, changes))
        try:
            changed = checkpoint.read(file)
            charrnn.load(file)
        except InputError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)
        else:
            assert same(changed, whole)

    check()


def leaves(value, path=()):
    """Every position in nested containers."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, part in enumerate(value) if isinstance(value, list) else items:
        yield from leaves(part, (*path, key))


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
def test_changed_contents_are_an_error(tmp_path, kind):
    """Where somebody wrote a whole file whose parts do not fit: no crash, no hang, one line."""
    _, _, whole = make(kind, "abc")
    file, model = tmp_path / "made.ckpt", make(kind, "abc")
    odd = [None, -1, 3.5, "x", [], {"a": 1}, torch.zeros(2)]
    for path in list(leaves(whole))[1:]:
        for value in odd:
            changed = torch.load(io.BytesIO(saved(whole)), weights_only=True)
            part = changed
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = value
            save(changed, file)
            for reader in (charrnn.load, lambda f: checkpoint.initialize_model(*model[:2], f)):
                with contextlib.suppress(InputError):
                    reader(file)


def saved(value):
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


# Long


@pytest.mark.slow
def test_memory_stays_flat_over_20_000_windows(tmp_path):
    """With samples, validations and savings on the way, and twenty-five passes over the text.

    In a process of its own: one that was forked grows as it touches what it shares.
    """
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    arguments = (
        "data.path=text.txt",
        *TINY,
        "trainer.max_epochs=20",
        "callbacks.checkpoint.keep=2",
    )
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments, "hydra.run.dir=run"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    sizes = {}  # MiB resident, by windows
    while process.poll() is None:
        time.sleep(0.5)
        with contextlib.suppress(OSError, IndexError, ValueError):
            windows = int(
                (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].split(",")[0]
            )
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            sizes[windows] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    assert process.returncode == 0
    early = max(size for windows, size in sizes.items() if 1000 <= windows < 5000)
    late = max(size for windows, size in sizes.items() if 15_000 <= windows)
    print(f"resident: {early:.1f} MiB early, {late:.1f} MiB late, {len(sizes)} looks")
    assert late < early + 4
