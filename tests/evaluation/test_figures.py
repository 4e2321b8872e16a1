"""train.py mode=evaluate: figures of a checkpoint that stays as it is, and nothing else."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import TEXT, TINY, load

import charrnn
from charrnn.data.charset import BOUNDARY
from charrnn.data.windows import BURN_IN, EvaluationWindows
from charrnn.errors import InputError
from charrnn.evaluation import dynamic
from charrnn.evaluation import report as figures
from charrnn.evaluation import static as evaluation
from charrnn.evaluation.report import report
from charrnn.runs.members import find_checkpoints


@pytest.fixture(scope="module")
def model(trained):
    return charrnn.load(trained)


def indices(model, text):
    return torch.from_numpy(model.charset.encode(text).astype(np.int64))


def listing(folder):
    return sorted(
        (p.relative_to(folder), p.is_file() and p.read_bytes()) for p in folder.rglob("*")
    )


def test_the_command_line(command, trained, model):
    """Its numbers are those of a plain loop over the text."""
    folder = trained.parent
    before = listing(folder)
    result = command(
        "train.py", "mode=evaluate", f"checkpoint={trained}", "evaluate.output=figures, 1.json",
        "evaluate.dynamic=sgd", cwd=folder,
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    found = json.loads((folder / "figures, 1.json").read_text("utf-8"))
    (folder / "figures, 1.json").unlink()
    assert listing(folder) == before  # no run's folder, no checkpoint changed
    begin = int(0.9 * len(TEXT))
    nats = evaluation.score(model.model, indices(model, TEXT)[begin - 1 - BURN_IN :])[BURN_IN:]
    assert found["characters"] == len(nats) == len(TEXT) - begin and found["split"] == "valid"
    assert found["warm"]["nats"] == pytest.approx(nats.mean(), abs=1e-6)
    assert found["cold"]["nats"] != found["warm"]["nats"]
    for kind in ("cold", "warm", "dynamic"):
        line = next(line for line in result.out.splitlines() if line.startswith(kind))
        values = [found[kind][key] for key in ("nats", "bpc", "perplexity")]
        assert line.split()[1:4] == [f"{value:.4f}" for value in values]
    assert "unknown" not in found and "unknown" not in result.out


@pytest.mark.parametrize("preset", ["tiny_shakespeare", "shakespeare_10min"])
def test_a_reference_result_at_toy_size(command, tmp_path, preset):
    """By the two commands of the README: the run's own test is the warm figure."""
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    result = command(
        "train.py", f"experiment={preset}", "data.path=text.txt", "data.test_size=600",
        "model.hidden_size=8", "data.batch_size=3", "data.seq_len=50", "trainer.max_epochs=2",
        "callbacks.samples=null", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert f"{len(TEXT) - 600:,} characters train" in result.out
    assert "validation " not in result.out  # nothing chooses on the split that is reported
    (line,) = (line for line in result.out.splitlines() if line.startswith("test "))
    result = command(
        "train.py", "mode=evaluate", "checkpoint=run", "evaluate.dynamic=rms", "evaluate.lr=1e-4",
        "evaluate.decay=1e-3", "evaluate.output=figures.json", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert (found["split"], found["characters"]) == ("test", 600)
    assert float(line.split()[1]) == pytest.approx(found["warm"]["nats"], abs=1e-4)
    assert "(last.ckpt)" in line
    assert 0 < found["dynamic"]["nats"] != found["warm"]["nats"]


def test_another_text_with_unknown_characters(trained, tmp_path):
    text = TEXT[:700] + "\u2603 \u2603"
    (tmp_path / "other.txt").write_text(text, "utf-8")
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    found = report(find_checkpoints(tmp_path / "alone.ckpt"), {"path": str(tmp_path / "other.txt")})
    nats = charrnn.load(tmp_path / "alone.ckpt").score(text)
    assert found["warm"]["nats"] == pytest.approx(nats.mean(), abs=1e-6)
    unknown = np.array([c == "\u2603" for c in text[1:]])
    assert found["unknown"] == pytest.approx({
        "characters": 2, "nats": nats[unknown].sum(), "of_mean": nats.mean() - nats[~unknown].mean()
    }, abs=1e-5)  # fmt: skip
    shown = figures.table(found)
    assert f"all, {len(text) - 1} characters" in shown and "unknown  2 characters (" in shown
    part = report(
        find_checkpoints(tmp_path / "alone.ckpt"),
        {"path": str(tmp_path / "other.txt")},
        split="valid",
    )
    assert part["characters"] == len(text) - int(0.9 * len(text))


@pytest.mark.parametrize("split", ["train", "valid", "test", "all"])
def test_splits(trained, split):
    sizes = {"train": len(TEXT) - 501, "valid": 200, "test": 300, "all": len(TEXT) - 1}
    data = {"valid_size": 200, "test_size": 300}
    found = report(find_checkpoints(trained), data, split=split)
    assert (found["split"], found["characters"]) == (split, sizes[split])
    assert report(find_checkpoints(trained), data)["split"] == "test"


@pytest.mark.parametrize("form", ["sgd", "rms"])
def test_dynamic_leaves_the_checkpoint(trained, model, form):
    file = trained / "checkpoints" / "last.ckpt"
    before, weights = file.read_bytes(), {k: v.clone() for k, v in model.model.state_dict().items()}
    found = report(find_checkpoints(trained), {}, dynamic=form, lr=0.001, decay=0.01, seq_len=9)[
        "dynamic"
    ]
    assert file.read_bytes() == before
    tokens, begin = indices(model, TEXT), int(0.9 * len(TEXT))
    squares = dynamic.mean_squares(model.model, tokens[:begin], 9) if form == "rms" else None
    windows = EvaluationWindows(tokens, 9, begin, rows=1)
    wanted = dynamic.evaluate(model.model, windows, 0.001, 0.01, squares)
    assert found["nats"] == pytest.approx(wanted.nats, abs=1e-6)
    assert all(weights[key].equal(value) for key, value in model.model.state_dict().items())
    # At this rate it helps: the model has hardly been trained.
    assert found["nats"] < report(find_checkpoints(trained), {})["warm"]["nats"]


@pytest.mark.parametrize(
    ("scored", "held_back"),
    [("test", (80, 90)), ("valid", (72, 80)), ("train", (80, 90)), (None, (80, 90)), ("all", None)],
)
def test_a_search_never_looks_at_what_is_scored(monkeypatch, scored, held_back):
    tokens = torch.arange(100)
    parts = {"train": (tokens, 0, 80), "valid": (tokens, 80, 90), "test": (tokens, 90, 100)}
    if held_back is None:
        with pytest.raises(InputError, match=r"^evaluate\.search: nothing of the text is left"):
            figures.find_held_back(parts, scored)
        return
    assert figures.find_held_back(parts, scored)[1:] == held_back
    monkeypatch.setattr(figures, "SEARCHED", 5)
    assert figures.find_held_back(parts, scored)[1:] == (held_back[0], held_back[0] + 5)
    parts["valid"] = (tokens, 80, 80)
    if scored == "train":
        with pytest.raises(InputError, match=r"^evaluate\.search"):
            figures.find_held_back(parts, scored)
    else:
        assert figures.find_held_back(parts, scored)[1:] == (72, 77)


def test_search(trained, monkeypatch):
    monkeypatch.setattr(figures, "SEARCHED", 300)
    found = report(
        find_checkpoints(trained), {}, split="valid", dynamic="sgd", search=True, seq_len=50
    )["dynamic"]
    tried = found["search"]["tried"]
    assert found["search"]["characters"] == 300 and len(tried) > 3
    least = min(tried, key=lambda one: one["nats"])
    assert (found["lr"], found["decay"]) == (least["lr"], least["decay"])
    fixed = report(find_checkpoints(trained), {}, dynamic="sgd", search=True, lr=0.02, seq_len=50)[
        "dynamic"
    ]
    assert {one["lr"] for one in fixed["search"]["tried"]} == {0.02}


def test_documents(command, tmp_path):
    """The state is zero where one begins, also in a burn-in."""
    text = "".join(f"{line}\n\n" for line in TEXT.splitlines() if line.strip())
    (tmp_path / "text.txt").write_text(text, "utf-8")
    run = tmp_path / "run"
    result = command(
        "train.py", "data.path=text.txt", r"data.document=\n\n", *TINY, f"hydra.run.dir={run}",
        "trainer.limit_train_batches=3", "trainer.max_epochs=1", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    model = charrnn.load(run)
    documents = "".join(BOUNDARY + line for line in TEXT.splitlines() if line.strip())
    begin = int(0.9 * len(documents))
    warm = model.score(documents)[begin - 1 :].mean()
    assert report(find_checkpoints(run), {})["warm"]["nats"] == pytest.approx(warm, abs=1e-6)
    validated = load(run / "checkpoints" / "last.ckpt")["charrnn"]["validations"][-1]
    assert validated == [3, pytest.approx(warm, abs=1e-6)]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["mode=train_it"], "mode=train_it must be train or evaluate"),
        (["mode=evaluate", "evaluate.lr=x"], "evaluate.lr=x must be a number or null"),
        (["mode=evaluate", "evaluate.output=no/x"], "evaluate.output=no/x: there is no such"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_in_a_line(command, trained, tmp_path, arguments, wanted):
    result = command("train.py", *arguments, f"checkpoint={trained}", cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {wanted}") and result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [{"rows": 0}, {"seq_len": 0}, {"dynamic_rows": 0}, {"burn_in": -1}, {"lr": -1.0},
     {"decay": 1.5}, {"dynamic": "adam"}, {"search": True}, {"split": "test"}, {"split": "odd"},
     {"dynamic": "sgd", "lr": 9e37}],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_named(trained, bad):
    name, value = list(bad.items())[-1]
    with pytest.raises(
        InputError, match=rf"^evaluate\.{name}={str(value).lower()}".replace("+", r"\+")
    ):
        report(find_checkpoints(trained), {}, **bad)


def test_a_text_that_has_changed(command, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    text = trained.parent / "text.txt"
    text.write_text(TEXT + "more", "utf-8")
    try:
        with pytest.raises(InputError, match=r"^data\.path: the text has changed since"):
            report(find_checkpoints(tmp_path / "run"), {})
    finally:
        text.write_text(TEXT, "utf-8")
