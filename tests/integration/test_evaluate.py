"""train.py mode=evaluate and sample.py score=FILE: their output, and no other effect."""

import json

import numpy as np
import pytest
import torch
from helpers import TEXT, TINY, load

import charrnn
from charrnn.data.charset import BOUNDARY
from charrnn.data.windows import BURN_IN
from charrnn.evaluation import build_report, score
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


def test_mode_evaluate_reports_the_loss_of_a_plain_loop(command, trained, model):
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
    nats = score(model.model, indices(model, TEXT)[begin - 1 - BURN_IN :])[BURN_IN:]
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


def test_documents(command, tmp_path):
    """The state is zero at the beginning of a document, also in a burn-in."""
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
    assert build_report(find_checkpoints(run), {})["warm"]["nats"] == pytest.approx(warm, abs=1e-6)
    validated = load(run / "checkpoints" / "last.ckpt")["charrnn"]["validations"][-1]
    assert validated == [3, pytest.approx(warm, abs=1e-6)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mode=train_it"], "mode=train_it must be train or evaluate"),
        (["mode=evaluate", "evaluate.lr=x"], "evaluate.lr=x must be a number or null"),
        (["mode=evaluate", "evaluate=null"], "evaluate=null must be a group of keys"),
        (["mode=evaluate", "evaluate.output=no/x"], "evaluate.output=no/x: there is no such"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_errors_are_one_line(command, trained, tmp_path, arguments, expected):
    result = command("train.py", *arguments, f"checkpoint={trained}", cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {expected}") and result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_score_table_is_all_that_is_printed(command, trained, tmp_path):
    model = charrnn.load(trained)
    (tmp_path / "a, b.txt").write_text(TEXT[:300], "utf-8")
    result = command("sample.py", f"checkpoint={trained}", "score=a, b.txt", cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    head, first, *lines = result.out.splitlines()
    assert (head, first) == ("character\tbits", f"{TEXT[0]}\t".replace("\n", "\\n"))
    total = sum(float(line.split("\t")[1]) for line in lines)
    assert total == pytest.approx((model.score(TEXT[:300]) / np.log(2)).sum(), rel=1e-4)
    # In Python: which of two texts is likelier.
    texts = [TEXT[:300], "", TEXT[:100][::-1], TEXT[:100]]
    found = model.score_many(texts)
    for nats, text in zip(found, texts):
        np.testing.assert_allclose(nats, model.score(text), atol=1e-5)
    assert found[3].sum() < found[2].sum()
