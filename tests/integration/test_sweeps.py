"""Sweeps as processes: failures, ends of every kind, starting again, and the results."""

import csv
import json
import os
import shlex
import shutil
import signal
import time
import urllib.parse

import pytest
from helpers import ROOT, TEXT, TINY, load, metrics, same, wait_for
from pages import Elements

from charrnn.runs.report import report_sweep
from charrnn.runs.search import open_study
from charrnn.runs.sweep import read_jobs

SHORT = (*TINY, "trainer.max_epochs=2", "trainer.limit_train_batches=30", "callbacks.samples=null")
COMMON = ("search", "stop_worse")  # what the others are made of
ABLATIONS = {"rollover": 3, "reset": 2, "gate": 2, "kind": 2, "window": 5}
FILES = sorted((ROOT / "conf" / "sweep").glob("*.yaml"))
SEARCHES = [file.stem for file in FILES if file.stem not in (*COMMON, *ABLATIONS, "lr", "recipe")]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return tmp_path


def answer(sweep):
    with open(sweep / "results.csv", newline="") as f:
        return list(csv.DictReader(f))


def folders(sweep):
    return sorted(path.name for path in sweep.glob("[0-9]*/"))


def numbers(run):
    """What must be the same to the last bit."""
    checkpoint = load(run / "checkpoints" / "last.ckpt")
    ours = {k: checkpoint["charrnn"][k] for k in ("carry", "position", "validations", "rounds")}
    rows = [{k: v for k, v in r.items() if k != "train/chars_per_second"} for r in metrics(run)]
    return {"weights": checkpoint["state_dict"], "rows": rows} | ours


def test_a_grid_with_failing_jobs(command, folder):
    result = command(
        "train.py", "-m", "data.path=text.txt", *SHORT, "model=gru_encode,gru_resize",
        "optimizer=sgd", "optimizer.lr=2", "trainer.gradient_clip_val=null",
        "optimizer.lr=1,1e30", cwd=folder,
    )  # fmt: skip
    assert result.code == 1, result.err
    (sweep,) = folder.glob("multirun/*/*")
    names = ["0_model=gru_encode,lr=1", "1_model=gru_encode,lr=1e+30",
             "2_model=gru_resize,lr=1", "3_model=gru_resize,lr=1e+30"]  # fmt: skip
    assert folders(sweep) == names
    errors = result.err.splitlines()  # one line for each job that failed, and no other
    assert [line.partition(": the loss is")[0] for line in errors] == [
        f"error: {names[i]}" for i in (1, 3)
    ]
    rows = answer(sweep)
    best = [float(row["best_bpc"] or "inf") for row in rows]
    assert best == sorted(best) and best[1] < best[2] == float("inf")
    states = {row["folder"]: row["state"] for row in rows}
    assert states == dict(zip(names, ["finished", "failed", "finished", "failed"]))
    row = next(row for row in rows if row["job"] == "2")
    assert (row["model"], row["optimizer.lr"], row["windows"]) == ("gru_resize", "1", "60")
    losses = [bpc for _, bpc in load(sweep / names[2] / "checkpoints/last.ckpt")["charrnn"][
        "validations"]]  # fmt: skip
    assert float(row["best_bpc"]) == pytest.approx(min(losses) / 0.6931471805599453)
    assert float(row["characters_per_second"]) > 0
    weights = load(sweep / names[2] / "checkpoints/last.ckpt")["state_dict"]
    assert int(row["parameters"]) == sum(w.numel() for w in weights.values())
    assert "2 of 4 jobs failed:" in result.out
    start = f"    python {ROOT / 'train.py'} "
    lines = [line for line in result.out.splitlines() if line.startswith(start)]
    again = command(*shlex.split(lines[0])[1:], cwd=folder)
    assert again.code == 2 and "the loss is" in again.err
    assert "results.html" in result.out and (sweep / "results.html").exists()
    # The page of a job that failed says so, and has the reason.
    page = (sweep / names[1] / "report.html").read_text()
    assert '"state":"failed","reason":"the loss is' in page


def test_refused_as_a_whole(command, folder):
    result = command("train.py", "-m", "model=gru_other,gru_encode", cwd=folder)
    assert result.code == 2 and result.err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["text.txt"]


def arguments(sweep, *swept):
    return ("train.py", "-m", "data.path=text.txt", *SHORT, "model.dropout=0.3",
            "callbacks.checkpoint.every_n_steps=7", *swept, f"hydra.sweep.dir={sweep}")  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command):
    """A sweep that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "text.txt").write_text(TEXT, "utf-8")
    result = command(*arguments("sweep", "seed=1,2,3"), cwd=folder)
    assert (result.code, result.err) == (0, "")
    return folder / "sweep"


def test_killed_in_the_second_job_and_started_again(command, whole, folder):
    """Twice: when the job has a folder and nothing else, and in the middle of it."""
    sweep = folder / "sweep"
    for moment in (".hydra", "checkpoints/round_0001.ckpt"):
        process = command.start(*arguments("sweep", "seed=1,2,3"), cwd=folder)
        wait_for(sweep / "1_seed=2" / moment)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    states = {job.folder.name: job.state for job in read_jobs(sweep)}
    assert states == {"0_seed=1": "finished", "1_seed=2": "interrupted"}
    first = (sweep / "0_seed=1" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    windows = load(sweep / "1_seed=2" / "checkpoints" / "last.ckpt")["charrnn"]["windows"]
    assert 0 < windows < 60
    result = command(*arguments("sweep", "seed=1,2,3"), cwd=folder)
    assert result.code == 0, result.err
    assert "0_seed=1: finished before" in result.out
    assert result.out.count("untrained: validation") == 1  # of the third; the second goes on
    assert (sweep / "0_seed=1" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == first
    assert folders(sweep) == folders(whole) == ["0_seed=1", "1_seed=2", "2_seed=3"]
    for name in folders(sweep):
        assert same(numbers(sweep / name), numbers(whole / name)), name
    pick = [{k: v for k, v in r.items() if k != "characters_per_second"} for r in answer(sweep)]
    assert pick == [
        {k: v for k, v in r.items() if k != "characters_per_second"} for r in answer(whole)
    ]


def test_jobs_are_known_by_what_they_are_and_not_by_number(command, whole, folder):
    shutil.copytree(whole, folder / "sweep")
    before = numbers(folder / "sweep" / "2_seed=3")
    result = command(*arguments("sweep", "seed=3,9,1"), cwd=folder)
    assert result.code == 0, result.err
    assert "2_seed=3: finished before" in result.out and "0_seed=1: finished before" in result.out
    assert folders(folder / "sweep") == ["0_seed=1", "1_seed=2", "2_seed=3", "3_seed=9"]
    assert same(numbers(folder / "sweep" / "2_seed=3"), before)
    other = command(*arguments("sweep", "seed=1,2", "model.dropout=0.1"), cwd=folder)
    assert other.code == 0, other.err
    assert folders(folder / "sweep")[-2:] == ["4_seed=1", "5_seed=2"]
    saved = load(folder / "sweep" / "4_seed=1" / "checkpoints" / "last.ckpt")
    assert saved["charrnn"]["settings"]["model"]["dropout"] == 0.1


def test_failed_jobs_run_again(command, whole, folder):
    swept = arguments("sweep", "init_from=null,weights.ckpt")
    result = command(*swept, cwd=folder)
    assert result.code == 1 and "1 of 2 jobs failed" in result.out
    assert [row["state"] for row in answer(folder / "sweep")] == ["finished", "failed"]
    shutil.copy(whole / "0_seed=1" / "checkpoints" / "last.ckpt", folder / "weights.ckpt")
    result = command(*swept, cwd=folder)
    assert result.code == 0, result.err
    assert "0_init_from=null: finished before" in result.out and "failed" not in result.out
    assert folders(folder / "sweep") == ["0_init_from=null", "1_init_from=weights.ckpt"]


def test_ctrl_c_saves_the_running_job(command, whole, folder):
    sweep = folder / "sweep"
    process = command.start(*arguments("sweep", "seed=1,2,3"), cwd=folder)
    wait_for(sweep / "1_seed=2" / "checkpoints" / "round_0000.ckpt")
    report_sweep(sweep)
    assert (sweep / "results.html").exists()
    assert [job.state for job in read_jobs(sweep)] == ["finished", "running"]
    os.kill(process.pid, signal.SIGINT)
    result = process.wait()
    assert result.code == 130 and "Traceback" not in result.err
    assert "SIGINT: saved after window" in result.out
    assert folders(sweep) == ["0_seed=1", "1_seed=2"]
    (line,) = (words for words in result.out.splitlines() if words.startswith("start again "))
    assert command(*shlex.split(line)[3:], cwd=folder).code == 0
    for name in folders(whole):
        assert same(numbers(sweep / name), numbers(whole / name)), name


def test_clearly_worse_jobs_are_stopped(command, folder):
    swept = ("sweep=stop_worse", "hydra.sweeper.pruner.n_warmup_steps=30",
             "hydra.sweeper.pruner.n_startup_trials=2",
             "optimizer.lr=3e-3,4e-3,1e-7")  # fmt: skip
    for _ in range(2):  # the second time nothing is left to do
        result = command(*arguments("sweep", *swept), cwd=folder)
        assert (result.code, result.err) == (0, ""), result.err
        rows = answer(folder / "sweep")
        assert [row["state"] for row in rows] == ["finished", "finished", "stopped"]
        assert rows[2]["windows"] == "30" and "by MedianPruner" in rows[2]["reason"]
    assert "untrained" not in result.out


@pytest.fixture(scope="module")
def searched(tmp_path_factory, command):
    """The shipped search for a learning rate, killed in its second job and started again."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "text.txt").write_text(TEXT, "utf-8")
    search = ("train.py", "sweep=lr", "data.path=text.txt", *SHORT, "hydra.sweeper.n_trials=3",
              "hydra.sweep.dir=sweep", "callbacks.checkpoint.every_n_steps=5")  # fmt: skip
    process = command.start(*search, cwd=folder)
    end = time.monotonic() + 120
    while not (second := list(folder.glob("sweep/1_*/checkpoints/round_0001.ckpt"))):
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = command(*search, cwd=folder)
    assert result.code == 0, result.err
    return folder / "sweep", second[0].parent.parent, result


def test_a_search_goes_on(searched):
    sweep, second, result = searched
    rows = answer(sweep)
    assert len(rows) == len(folders(sweep)) == 3
    assert {row["state"] for row in rows} == {"finished"} and second.name in folders(sweep)
    assert result.err == ""
    assert result.out.count("untrained: validation") == 1
    untouched = [name for name in folders(sweep) if f"run: sweep/{name}" not in result.out]
    assert len(untouched) == 1 and untouched[0].startswith("0_")
    values = sorted(t.value for t in open_study(sweep).get_trials() if t.value)
    assert values == pytest.approx([float(row["best_bpc"]) for row in rows])
    rates = [float(row["optimizer.lr"]) for row in rows]
    assert len(set(rates)) == 3 and all(1e-4 <= rate <= 1e-1 for rate in rates)


def test_a_search_in_which_all_fails(command, folder):
    result = command(
        "train.py", "sweep=lr", "data.path=text.txt", "data.seq_len=0", "hydra.sweeper.n_trials=1",
        "hydra.sweep.dir=sweep", cwd=folder,
    )  # fmt: skip
    assert result.code == 2 and "1 of 1 jobs failed" in result.out
    first, second = result.err.splitlines()
    assert "data.seq_len=0 must be" in first and second == "error: no job of the search finished"


@pytest.mark.parametrize("name", SEARCHES)
def test_shipped_searches(command, folder, name):
    sizes = [a for a in SHORT if not a.startswith("model.hidden_size") or name != "shape"]
    sizes += ["model.parameters=3000"] if name == "shape" else []
    result = command(
        "train.py", f"sweep={name}", "data.path=text.txt", *sizes, "hydra.sweeper.n_trials=2",
        "trainer.limit_train_batches=3", "hydra.sweep.dir=sweep", cwd=folder,
    )  # fmt: skip
    assert result.code == 0, result.err
    rows = answer(folder / "sweep")
    assert [row["state"] for row in rows] == ["finished"] * 2
    if name == "shape":
        assert all(2000 < int(row["parameters"]) <= 3000 for row in rows)


PARTS = ("data.valid_size=500", "data.test_size=500")


@pytest.mark.parametrize("name", ABLATIONS)
def test_shipped_ablations(command, folder, name):
    result = command(
        "train.py", f"sweep={name}", "data.path=text.txt", "hydra.sweeper.params.seed=2",
        "model.hidden_size=8" if name != "kind" else "model.parameters=3000", *PARTS,
        "trainer.max_epochs=1", "trainer.limit_train_batches=1", "hydra.sweep.dir=sweep",
        cwd=folder,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "\ntest " not in result.out  # that part is not read
    rows = answer(folder / "sweep")
    assert [row["state"] for row in rows] == ["finished"] * ABLATIONS[name]
    if name == "kind":
        assert all(2000 < int(row["parameters"]) <= 3000 for row in rows)


def test_the_search_for_the_reference_results(command, folder):
    """Each size has its own number of passes."""
    result = command(
        "train.py", "sweep=recipe", "data.path=text.txt", *PARTS, "data.seq_len=64",
        "trainer.limit_train_batches=1", "sweep.size=512x1,256x2",
        "sweep.sizes={512x1: {hidden_size: 9}, 256x2: {hidden_size: 7}}",
        "hydra.sweep.dir=sweep", cwd=folder,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "\ntest " not in result.out
    found = {
        row["sweep.size"]: load(folder / "sweep" / row["folder"] / "checkpoints" / "last.ckpt")
        for row in answer(folder / "sweep")
    }
    for size, layers, hidden, passes in (("512x1", 1, 9, 5), ("256x2", 2, 7, 6)):
        ours = found[size]["charrnn"]
        assert ours["carry"].shape == (layers, 16, hidden) and ours["windows"] == passes


def test_a_failed_job_of_a_shipped_sweep_by_itself(command, folder):
    """It has what the sweep's file says: here two rounds, and no test."""
    swept = ("sweep=gate", "data.path=text.txt", *PARTS, "seed=1", "model.hidden_size=8",
             "trainer.limit_train_batches=1", "hydra.sweep.dir=sweep")  # fmt: skip
    result = command("train.py", *swept, "model.gate=wrong,sigmoid", cwd=folder)
    assert result.code == 1, result.err
    (line,) = (line for line in result.out.splitlines() if line.startswith("    python "))
    again = shlex.split(line)[2:]
    refused = command("train.py", *again, cwd=folder)
    assert refused.code == 2 and "gate=wrong must be" in refused.err
    right = [argument.replace("wrong", "sigmoid") for argument in again]
    result = command("train.py", *right, "hydra.run.dir=run", cwd=folder)
    assert result.code == 0 and "\ntest " not in result.out, result.err
    saved = [load(folder / run / "checkpoints" / "last.ckpt")
             for run in ("run", "sweep/1_gate=sigmoid")]  # fmt: skip
    assert same(*(part["state_dict"] for part in saved))


def test_the_page_of_a_sweep(whole):
    """Every job with its curve and a link to its report, and the group of their seeds."""
    page = Elements((whole / "results.html").read_text("utf-8"))
    data = json.loads(page.texts[1])
    assert [job["state"] for job in data["jobs"]] == ["finished"] * 3
    assert all(len(job["curve"][0]) for job in data["jobs"]) and len(data["groups"]) == 1
    for job in data["jobs"]:
        assert (whole / urllib.parse.unquote(job["link"])).is_file()
