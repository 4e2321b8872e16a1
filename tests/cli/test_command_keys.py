"""Every key of sample.yaml and evaluate.yaml: a changed value, and another output or one line."""

import io
import sys
from types import SimpleNamespace

import pytest
import torch
from conf_keys import options
from helpers import TEXT, load
from small_models import saved_model

from charrnn import GRUEncode, InputError, checkpoint
from charrnn.cli import evaluate, sample
from charrnn.cli.arguments import Program
from charrnn.cli.effects import EVALUATE, SAMPLE, TRAIN, of_a_sweep, without_effect
from charrnn.cli.keys import conf_yaml

KEYS = options()
COMMAND = SimpleNamespace(program=Program(), overrides=())
UNKNOWN = {"prompt": "a\u2028", "unknown": "skip"}
SCORE = {"score": "other.txt"}
BEAM = {"beam": 3, "checkpoint": "sharp.ckpt", "prompt": "a", "length": 12, "stop": "d"}
OF_SAMPLE = {
    # What else is set, unchanged and changed; and the changed value.
    "checkpoint": ({}, "trained/checkpoints/round_0000.ckpt"),
    "prompt": ({}, "def "),
    "length": ({}, 9),
    "temperature": ({}, 0.2),
    "top_k": ({}, 1),
    "min_p": ({}, 0.99),
    "top_p": ({}, 0.01),
    "allow": ({}, "ab"),
    "no_repeat": ({"temperature": 0, "length": 200}, 2),
    "beam": ({}, 2),
    "length_penalty": (BEAM, 5.0),
    "precision": ({"checkpoint": "sharp.ckpt", "length": 3000}, 16),
    "seed": ({}, 2),
    "num_samples": ({}, 2),
    "device": ({}, "cuda" if not torch.cuda.is_available() else "tpu"),
    "stop": ({"length": 300}, "e"),
    "unknown": (UNKNOWN, "replace"),
    "interactive": ({}, True),
    "raw": ({"checkpoint": "sharp.ckpt", "prompt": "\x07"}, True),
    "score": ({}, "other.txt"),
    "encoding": ({"score": "latin.txt"}, "latin-1"),
    "by": (SCORE, "line"),
    "allow_targets": ({"checkpoint": "own.ckpt", "length": 0}, ["other_models"]),
}
DYNAMIC = {"evaluate.dynamic": "sgd"}
OF_EVALUATE = {
    "checkpoint": ({}, "trained/checkpoints/round_0000.ckpt"),
    "data.path": ({}, "other.txt"),
    "data.encoding": ({"data.path": "latin.txt"}, "utf-16"),
    "data.valid_size": ({}, 300),
    "data.test_size": ({}, 300),
    "data.cache_dir": ({}, "no/such\0folder"),
    "evaluate.split": ({}, "train"),
    "evaluate.rows": ({}, 2),
    "evaluate.burn_in": ({}, 9),
    "evaluate.dynamic": ({}, "sgd"),
    "evaluate.lr": (DYNAMIC, 0.5),
    "evaluate.decay": (DYNAMIC, 0.5),
    "evaluate.seq_len": (DYNAMIC, 50),
    "evaluate.dynamic_rows": (DYNAMIC, 4),
    "evaluate.search": (DYNAMIC | {"data.valid_size": 30}, True),
    "evaluate.output": ({}, "figures.json"),
    "allow_targets": ({"checkpoint": "own.ckpt", "data.path": "other.txt"}, ["other_models"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("keys")
    (folder / "trained").symlink_to(trained)
    (folder / "other.txt").write_text(TEXT[:400], "utf-8")
    (folder / "latin.txt").write_bytes(TEXT[:400].encode() + b"\xe9")
    torch.manual_seed(0)
    _, _, content = saved_model(GRUEncode, "abcd\x07\n", hidden_size=8)
    content["state_dict"]["model.decoder.weight"] *= 5
    checkpoint.save(content, folder / "sharp.ckpt")
    own = load(trained / "checkpoints" / "last.ckpt")
    own["charrnn"]["settings"]["model"] = {"_target_": "other_models.Counter"}
    vocab_size = len(own["state_dict"]["model.decoder.bias"])
    own["state_dict"] = {"model.weight": torch.zeros(vocab_size)}
    checkpoint.save(own, folder / "own.ckpt")
    return folder


@pytest.fixture
def output(folder, monkeypatch, capsys):
    """A function from a command and changed settings to what it prints, or why it refuses."""
    monkeypatch.chdir(folder)

    def of(command, changes):
        settings = {k: v for k, v in conf_yaml(command).items() if k not in ("defaults", "hydra")}
        settings = {k: dict(v) if isinstance(v, dict) else v for k, v in settings.items()}
        common = {"checkpoint": "trained"} | ({"length": 40, "seed": 1} if "by" in settings else {})
        for key, value in (common | changes).items():
            *group, name = key.split(".")
            (settings[group[0]] if group else settings)[name] = value
        stdin = io.TextIOWrapper(io.BytesIO(b"x\n"))
        monkeypatch.setattr(sys, "stdin", stdin)
        run = {"sample": sample.sample, "evaluate": evaluate.evaluate}[command]
        try:
            run(settings, COMMAND)
            refused = ""
        except InputError as error:
            refused = str(error)
        made = sorted(file.name for file in folder.iterdir())
        return refused or (capsys.readouterr().out, made)

    return of


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_the_table_has_every_key(command):
    assert set(KEYS[command]) == set({"sample": OF_SAMPLE, "evaluate": OF_EVALUATE}[command])


ROWS = [("sample", k) for k in OF_SAMPLE] + [("evaluate", k) for k in OF_EVALUATE]


@pytest.mark.parametrize(("command", "key"), ROWS)
def test_key(output, command, key):
    before, value = {"sample": OF_SAMPLE, "evaluate": OF_EVALUATE}[command][key]
    first = output(command, before)
    assert first == output(command, before), "nothing is drawn that no seed says"
    assert first != output(command, before | {key: value})


EFFECTS = [
    # A command, what is given, and what one line says of it.
    (TRAIN, "data.path=x data.max_bytes=5", "data.max_bytes=5: has no effect on a text of"),
    (TRAIN, "data.path=x data.library=all", "data.library=all: has no effect"),
    (TRAIN, "data.path=x data.url=https://y", "data.url=https://y: has no effect where data.path"),
    (TRAIN, "data.valid_size=5 data.train_fraction=0.5", "data.train_fraction=0.5: has no effect"),
    (TRAIN, "data.valid_path=x data.valid_size=5", "data.valid_size=5: has no effect where"),
    (TRAIN, "data.test_path=x data.test_size=5", "data.test_size=5: has no effect where"),
    (TRAIN, "data.unit=byte data.encoding=latin-1", "data.encoding=latin-1: has no effect with"),
    (TRAIN, "task.max_rollbacks=5", "task.max_rollbacks=5: has no effect unless"),
    (TRAIN, "++task.rollback_factor=0.1 task.on_divergence=rollback", ""),
    (EVALUATE, "evaluate.lr=0.1", "evaluate.lr=0.1: has no effect unless evaluate.dynamic"),
    (EVALUATE, "evaluate.lr=0.1 evaluate.dynamic=sgd", ""),
    (EVALUATE, "data.path=x data.valid_size=9", "data.valid_size=9: has no effect where all"),
    (SAMPLE, "by=line", "by=line: has no effect unless score"),
    (SAMPLE, "score=x prompt='a b'", "prompt=a b: has no effect with score"),
    (SAMPLE, "length_penalty=1", "length_penalty=1: has no effect unless beam"),
    (SAMPLE, "temperature=0 seed=3", "seed=3: has no effect with beam or temperature=0"),
]


@pytest.mark.parametrize(("rules", "given", "expected"), EFFECTS)
def test_settings_that_act_only_with_others(rules, given, expected):
    name = {TRAIN: "train", EVALUATE: "evaluate", SAMPLE: "sample"}[rules]
    settings = {"data": {}, **conf_yaml(name)}
    for argument in given.split(" ") if "'" not in given else ["score=x"]:
        *group, key = argument.lstrip("+").partition("=")[0].split(".")
        value = argument.partition("=")[2]
        (settings[group[0]] if group else settings)[key] = 0 if value == "0" else value
    arguments = given.split(" ", 1) if "'" in given else given.split(" ")
    lines = without_effect(arguments, settings, rules)
    assert len(lines) == bool(expected) and all(line.startswith(expected) for line in lines)


def test_settings_of_a_sweep():
    given = ["launcher=joblib", "hydra.sweep.dir='a b'", "seed=1", "hydra.launcher.n_jobs=2"]
    keys = [line.partition(": has no effect on a single run")[0] for line in of_a_sweep(given)]
    assert keys == ["launcher=joblib", "hydra.sweep.dir=a b", "hydra.launcher.n_jobs=2"]
