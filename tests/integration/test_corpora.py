"""Whole runs on unusual corpora: documents, several texts, and a very large alphabet."""

import re

import numpy as np
import pytest
from helpers import TEXT, TINY, load

import charrnn
from charrnn import checkpoint
from charrnn.data.charset import BOUNDARY
from charrnn.data.datamodule import CharDataModule
from charrnn.evaluation.static import evaluate


def targets(data, windows):
    """The characters that are targets of an evaluation, sorted."""
    found = [w.targets[w.targets >= 0].tolist() for w in windows]
    return data.corpus.charset.decode(sorted(i for part in found for i in part))


def test_a_run_over_documents(command, tmp_path):
    """Train, validate, sample and resume."""
    (tmp_path / "text.txt").write_text(re.sub(r"\n\n+", "\n\n", TEXT), "utf-8")
    run, arguments = tmp_path / "run", ("data.path=text.txt", r"data.document=\n\n", *TINY)
    result = command("train.py", *arguments, f"hydra.run.dir={run}", "trainer.max_steps=3",
                     cwd=tmp_path)  # fmt: skip
    assert result.code == 0, result.err
    assert "untrained: validation" in result.out and BOUNDARY not in result.out
    charset = load(run / "checkpoints" / "last.ckpt")["charrnn"]["charset"]
    assert charset["documents"] and BOUNDARY in charset["characters"]
    model = charrnn.load(run)
    parts = [BOUNDARY + "def f():", BOUNDARY + "import os"]
    nats = model.score("".join(parts))
    assert nats[len(parts[0]) :] == pytest.approx(model.score(parts[1]), abs=1e-6)
    resumed = command("train.py", f"resume={run}", "trainer.max_steps=5", cwd=tmp_path)
    assert resumed.code == 0, resumed.err


def test_a_run_with_texts_of_its_own(command, tmp_path):
    """Train and score in lower case and one normalization form."""
    for name, text in (("train", TEXT), ("valid", "An \u00e9t\u00e9\u2603. " * 50)):
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    (tmp_path / "letters").write_text(TEXT + "e\u0301", "utf-8")
    run = tmp_path / "run"
    result = command(
        "train.py", "data.path=train.txt", "data.valid_path=valid.txt", "data.test_size=0.05",
        "data.normalize=nfd", "data.lowercase=true", "data.charset=letters", *TINY,
        f"hydra.run.dir={run}", "trainer.max_steps=3", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "data.valid_path: 50 of 550 characters are outside the alphabet" in result.out
    assert "data.path:" not in result.out
    model = charrnn.load(run)
    assert model.charset.normalize == "nfd" and model.charset.lowercase
    assert len(model.score("\u00c9T\u00c9")) == 4  # of five characters, after the first
    assert model.generate("\u00c9", length=0) == "e\u0301"
    data = CharDataModule(
        str(tmp_path / "train.txt"), normalize="nfd", lowercase=True, test_size=0.05,
        charset=model.charset, batch_size=3, seq_len=7,
    )  # fmt: skip
    assert targets(data, data.test) == "".join(sorted(TEXT.lower()[-int(0.05 * len(TEXT)) :]))
    nats = evaluate(charrnn.load(run / "checkpoints" / "best.ckpt").model, data.test).nats
    assert f"test             {nats:.4f} nats" in result.out
    (tmp_path / "valid.txt").write_text("other text", "utf-8")
    result = command("train.py", f"resume={run}", "trainer.max_steps=5", cwd=tmp_path)
    assert result.code == 2 and "the corpus has changed" in result.err
    assert "data.valid_path=FILE" in result.err


def test_a_run_over_more_than_65536_characters(command, tmp_path):
    """Train, resume, sample and score."""
    text = "".join(map(chr, range(0x20000, 0x20000 + 70_000))) * 2
    (tmp_path / "text.txt").write_text(text[:70_500], "utf-8")
    run = tmp_path / "run"
    arguments = (
        "data.path=text.txt", "data.valid_size=100", f"hydra.run.dir={run}", "model.hidden_size=2",
        "data.batch_size=2", "data.seq_len=3", "model.num_layers=1", "callbacks.samples.length=2",
        "trainer.limit_train_batches=2", "callbacks.checkpoint.keep=1",
    )  # fmt: skip
    resumed = (f"resume={run}", "trainer.max_epochs=2")
    for line in ((*arguments, "trainer.max_epochs=1"), resumed):
        result = command("train.py", *line, cwd=tmp_path)
        assert result.code == 0 and "70001 characters" in result.out, result.err
    model = charrnn.load(run)
    assert len(model.charset) == 70_001
    arguments = (f"checkpoint={run}", "seed=1", "length=5", f"prompt={text[69_000]}")
    sampled = command("sample.py", *arguments)
    assert sampled.code == 0 and len(sampled.out) == 6, sampled.err
    assert set(sampled.out) <= {*text, "\ufffd"} and sampled.out[0] == text[69_000]
    assert model.score(text[66_000:66_010]) == pytest.approx(np.log(70_001), abs=2)


def test_runs_from_before_newlines_were_universal(command, tmp_path):
    """Their checkpoints say nothing of newlines and encodings; they go on reading as they did."""
    data = b"\xef\xbb\xbf" + TEXT[:2000].replace("\n", "\r\n").encode() + b"\xff" * 20
    (tmp_path / "text.txt").write_bytes(data)
    run = tmp_path / "run"
    arguments = ("data.path=text.txt", *TINY, f"hydra.run.dir={run}", "trainer.max_steps=3")
    before = ("data.newlines=keep", "data.encoding=utf-8")
    assert command("train.py", *arguments, *before, cwd=tmp_path).code == 0
    file = run / "checkpoints" / "last.ckpt"
    saved = load(file)
    ours = saved["charrnn"]
    assert set("\r\ufeff") <= set(ours["charset"]["characters"])
    del ours["charset"]["newlines"], ours["settings"]["data"]["newlines"]
    del ours["settings"]["data"]["encoding"]
    checkpoint.save(saved, file)
    result = command("train.py", f"resume={run}", "trainer.max_steps=5", cwd=tmp_path)
    assert result.code == 0, result.err
    scored = command("sample.py", f"checkpoint={run}", "score=text.txt", cwd=tmp_path)
    assert scored.code == 0 and "\\r" in scored.out, scored.err
    assert scored.out.count("\n") == 1 + len(data.decode("utf-8", "replace"))
