"""The report of an evaluation: splits, other texts, searches, and settings out of range."""

import shutil

import numpy as np
import pytest
import torch
from helpers import TEXT
from small_models import saved_model

import charrnn
from charrnn import GRUEncode
from charrnn.checkpoint import find_checkpoint, save
from charrnn.data.datamodule import CharDataModule
from charrnn.data.windows import EvaluationWindows
from charrnn.errors import InputError
from charrnn.evaluation import build_report, corpus, format_report
from charrnn.evaluation.dynamic import evaluate_dynamic, mean_squared_gradients


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run with a checkpoint of its last window, and its text beside it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, "utf-8")
    data = {"path": str(folder / "text.txt"), "train_fraction": 0.9}
    module = CharDataModule(**data)
    _, _, saved = saved_model(GRUEncode, module.corpus.charset.alphabet, 8, 2)
    ours = saved["charrnn"]
    ours["settings"]["data"] = {"_target_": f"{CharDataModule.__module__}.CharDataModule"} | data
    ours["corpus"] = {"size": len(module.corpus.tokens), "sha256": module.corpus.sha256}
    save(saved | {"charrnn": ours | {"windows": 40}}, folder / "run" / "checkpoints" / "last.ckpt")
    return folder / "run"


@pytest.fixture(scope="module")
def model(trained):
    return charrnn.load(trained)


def indices(model, text):
    return torch.from_numpy(model.charset.encode(text).astype(np.int64))


def test_another_text_with_unknown_characters(trained, tmp_path):
    text = TEXT[:700] + "\u2603 \u2603"
    (tmp_path / "other.txt").write_text(text, "utf-8")
    shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "model.ckpt")
    found = build_report(
        [find_checkpoint(tmp_path / "model.ckpt")], {"path": str(tmp_path / "other.txt")}
    )
    nats = charrnn.load(tmp_path / "model.ckpt").score(text)
    assert found["warm"]["nats"] == pytest.approx(nats.mean(), abs=1e-6)
    unknown = np.array([c == "\u2603" for c in text[1:]])
    assert found["unknown"] == pytest.approx({
        "characters": 2, "nats": nats[unknown].sum(), "of_mean": nats.mean() - nats[~unknown].mean()
    }, abs=1e-5)  # fmt: skip
    shown = format_report(found)
    assert f"all, {len(text) - 1} characters" in shown and "unknown  2 characters (" in shown
    part = build_report(
        [find_checkpoint(tmp_path / "model.ckpt")],
        {"path": str(tmp_path / "other.txt")},
        split="valid",
    )
    assert part["characters"] == len(text) - int(0.9 * len(text))


@pytest.mark.parametrize("split", ["train", "valid", "test", "all"])
def test_splits(trained, split):
    sizes = {"train": len(TEXT) - 501, "valid": 200, "test": 300, "all": len(TEXT) - 1}
    data = {"valid_size": 200, "test_size": 300}
    found = build_report([find_checkpoint(trained)], data, split=split)
    assert (found["split"], found["characters"]) == (split, sizes[split])
    assert build_report([find_checkpoint(trained)], data)["split"] == "test"


@pytest.mark.parametrize("form", ["sgd", "rms"])
def test_dynamic_evaluation_does_not_change_the_checkpoint(trained, model, form):
    file = trained / "checkpoints" / "last.ckpt"
    before, weights = file.read_bytes(), {k: v.clone() for k, v in model.model.state_dict().items()}
    found = build_report(
        [find_checkpoint(trained)], {}, dynamic=form, lr=0.001, decay=0.01, seq_len=9
    )["dynamic"]
    assert file.read_bytes() == before
    tokens, begin = indices(model, TEXT), int(0.9 * len(TEXT))
    squares = mean_squared_gradients(model.model, tokens[:begin], 9) if form == "rms" else None
    windows = EvaluationWindows(tokens, 9, begin, rows=1)
    expected = evaluate_dynamic(model.model, windows, 0.001, 0.01, squares)
    assert found["nats"] == pytest.approx(expected.nats, abs=1e-6)
    assert all(weights[key].equal(value) for key, value in model.model.state_dict().items())
    # It helps, because the model is not trained.
    assert found["nats"] < build_report([find_checkpoint(trained)], {})["warm"]["nats"]


@pytest.mark.parametrize(
    ("scored", "held_back"),
    [("test", (80, 90)), ("valid", (72, 80)), ("train", (80, 90)), (None, (80, 90)), ("all", None)],
)
def test_a_search_never_reads_scored_text(monkeypatch, scored, held_back):
    tokens = torch.arange(100)
    parts = {"train": (tokens, 0, 80), "valid": (tokens, 80, 90), "test": (tokens, 90, 100)}
    if held_back is None:
        with pytest.raises(InputError, match=r"^evaluate\.search: nothing of the text is left"):
            corpus.held_back_part(parts, scored)
        return
    assert corpus.held_back_part(parts, scored)[1:] == held_back
    monkeypatch.setattr(corpus, "MAX_SEARCHED", 5)
    assert corpus.held_back_part(parts, scored)[1:] == (held_back[0], held_back[0] + 5)
    parts["valid"] = (tokens, 80, 80)
    if scored == "train":
        with pytest.raises(InputError, match=r"^evaluate\.search"):
            corpus.held_back_part(parts, scored)
    else:
        assert corpus.held_back_part(parts, scored)[1:] == (72, 77)


def test_search(trained, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_SEARCHED", 300)
    found = build_report(
        [find_checkpoint(trained)], {}, split="valid", dynamic="sgd", search=True, seq_len=50
    )["dynamic"]
    tried = found["search"]["tried"]
    assert found["search"]["characters"] == 300 and len(tried) > 3
    least = min(tried, key=lambda one: one["nats"])
    assert (found["lr"], found["decay"]) == (least["lr"], least["decay"])
    fixed = build_report(
        [find_checkpoint(trained)], {}, dynamic="sgd", search=True, lr=0.02, seq_len=50
    )["dynamic"]
    assert {one["lr"] for one in fixed["search"]["tried"]} == {0.02}


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
        build_report([find_checkpoint(trained)], {}, **bad)


def test_a_changed_text_is_an_error(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    text = trained.parent / "text.txt"
    text.write_text(TEXT + "more", "utf-8")
    try:
        with pytest.raises(InputError, match=r"^data\.path: the text has changed since"):
            build_report([find_checkpoint(tmp_path / "run")], {})
    finally:
        text.write_text(TEXT, "utf-8")
