"""Ensembles from command lines: the members of a sweep, and of single runs."""

import json
import shlex

import numpy as np
import pytest
from helpers import TEXT, TINY, load, same

import charrnn
from charrnn import InputError
from charrnn.evaluation import build_report
from charrnn.runs.members import find_checkpoints
from charrnn.runs.records import write_record
from charrnn.runs.sweep import read_job


def test_a_sweep_over_seeds(command, tmp_path):
    """The two commands of the shakespeare_60min preset, at toy size."""
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    result = command(
        "train.py", "experiment=shakespeare_60min", "data.path=text.txt", "data.test_size=600",
        "model.hidden_size=8", "data.batch_size=3", "data.seq_len=50", "trainer.max_epochs=1",
        "callbacks.samples=null", "hydra.sweep.dir=sweep", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    jobs = sorted(f.parent for f in tmp_path.glob("sweep/*/checkpoints"))
    assert [job.name.partition("=")[2] for job in jobs] == ["1", "2", "3", "4", "5"]
    result = command(
        "train.py", "mode=evaluate", "checkpoint=sweep", "evaluate.dynamic=rms", "evaluate.lr=1e-4",
        "evaluate.output=figures.json", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    names = [f"sweep/{job.name}/checkpoints/last.ckpt" for job in jobs]
    assert found["checkpoint"] == names and len(found["windows"]) == 5
    assert all(name in result.out for name in names)
    single = [build_report(find_checkpoints(job), {})["warm"]["nats"] for job in jobs]
    assert found["characters"] == 600 and found["warm"]["nats"] < np.mean(single)
    texts = [charrnn.load(job).score(TEXT)[-600:] for job in jobs]
    expected = -np.log(np.exp(-np.stack(texts)).mean(0)).mean()
    assert found["warm"]["nats"] == pytest.approx(expected, abs=1e-3)
    assert 0 < found["dynamic"]["nats"] != found["warm"]["nats"]

    again = shlex.split(read_job(jobs[1], 1).command())[2:]
    result = command("train.py", *again, "hydra.run.dir=single", cwd=tmp_path)
    assert result.code == 0, result.err
    parts = (load(run / "checkpoints" / "last.ckpt") for run in (jobs[1], tmp_path / "single"))
    assert same(*(part["state_dict"] for part in parts))

    sampled = command("sample.py", f"checkpoint=[{jobs[0]}, {jobs[1]}]", "seed=1", cwd=tmp_path)
    expected = charrnn.load(jobs[:2]).generate(seed=1)
    assert (sampled.code, sampled.out, sampled.err) == (0, expected, "")

    (jobs[3] / "checkpoints" / "last.ckpt").unlink()
    result = command("train.py", "mode=evaluate", "checkpoint=sweep", cwd=tmp_path)
    assert result.code == 2 and f"{jobs[3].name}: no checkpoint there" in result.err
    write_record(jobs[2], ["seed=3"], "running")  # and its process is gone
    result = command("sample.py", "checkpoint=sweep", cwd=tmp_path)
    assert result.code == 2 and f"{jobs[2].name}: interrupted; start the sweep again" in result.err


def test_members_of_different_splits(command, trained, tmp_path):
    """Text that one member was trained on must not be used to evaluate."""
    text = f"data.path={trained.parent / 'text.txt'}"
    result = command(
        "train.py", text, "hydra.run.dir=more", "trainer.max_epochs=1", "data.train_fraction=0.95",
        "trainer.limit_train_batches=3", *TINY, cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    pair = f"checkpoint=[{trained},more]"
    result = command("train.py", "mode=evaluate", pair, cwd=tmp_path)
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert "more/checkpoints/last.ckpt: trained on another text or another part" in result.err
    result = command("train.py", "mode=evaluate", pair, text, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    with pytest.raises(InputError, match="another part of it"):  # which of them is the split's?
        other = {"path": str(trained.parent / "text.txt")}
        build_report(find_checkpoints([trained, tmp_path / "more"]), other, split="valid")
