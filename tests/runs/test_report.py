"""Reports: groups over seeds, lists of runs, and tables that fit their terminal."""

import csv
import json
import re

import pytest
import yaml
from pages import Elements

from charrnn.runs.groups import group_by_seed
from charrnn.runs.records import write_record
from charrnn.runs.report import report_sweep
from charrnn.runs.sweep import read_jobs
from charrnn.runs.table import fit_columns

VALUES = {"1e-3": [2.0, 2.1, 2.2], "0.0017826497151386949": [2.1, 2.3, 2.2], "1e-2": [3.0]}


def make_run(run, overrides, bpc, state="finished", **about):
    (run / ".hydra").mkdir(parents=True)
    write_record(run, overrides, state)
    (run / ".hydra" / "about.yaml").write_text(yaml.safe_dump({"parameters": 123456} | about))
    rows = f"0,6.5,\n10,{bpc},45678\n"
    (run / "metrics.csv").write_text(f"step,val/bpc,train/chars_per_second\n{rows}")


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Learning rates over three seeds, one of a single seed, and a job that has not finished."""
    monkeypatch.chdir(tmp_path)
    number = 0
    for lr, values in VALUES.items():
        for seed, bpc in enumerate(values, 1):
            overrides = [f"optimizer.lr={lr}", "data.path=a.txt", f"seed={seed}"]
            make_run(tmp_path / "sweep" / str(number), overrides, bpc)
            number += 1
    make_run(
        tmp_path / "sweep" / "9",
        ["optimizer.lr=1e-3", "data.path=a.txt", "seed=9"],
        0.1,
        "interrupted",
    )
    (tmp_path / "sweep" / "multirun.yaml").write_text("")
    return tmp_path / "sweep"


def test_groups_over_seeds(sweep):
    first, second, third = group_by_seed(read_jobs(sweep))
    assert [group.count for group in (first, second, third)] == [3, 3, 1]
    assert (first.mean, first.sd) == pytest.approx((2.1, 0.1))
    assert first.difference != first.difference and first.pairs == 0
    # Differences of the same seeds: 0.1, 0.2 and 0.0.
    assert (second.difference, second.error, second.pairs) == pytest.approx((0.1, 0.1 / 3**0.5, 3))
    assert third.difference == pytest.approx(1.0) and third.error != third.error
    assert third.sd != third.sd


def test_no_groups_without_seeds(tmp_path):
    for number, lr in enumerate(VALUES):
        make_run(tmp_path / str(number), [f"optimizer.lr={lr}", "seed=1"], number)
    assert group_by_seed(read_jobs(tmp_path)) == []


def test_groups_in_table_csv_and_page(sweep, capsys):
    report_sweep(sweep)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["lr", "mean", "bpc", "sd", "seeds", "difference", "±", "error"]
    assert lines[2].split() == ["0.001783", "2.2000", "0.1000", "3", "+0.1000", "0.0577"]
    with open(sweep / "groups.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [row["seeds"] for row in rows] == ["3", "3", "1"]
    assert float(rows[1]["difference"]) == pytest.approx(0.1) and rows[0]["difference"] == ""
    data = json.loads(Elements((sweep / "results.html").read_text()).texts[1])
    assert [len(group["best"]) for group in data["groups"]] == [3, 3, 1]
    assert data["groups"][1]["difference"] == pytest.approx(0.1)


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_numbers_are_never_cut(sweep, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    jobs = report_sweep(sweep)
    out = capsys.readouterr().out.split("results  ")[0]
    assert max(map(len, out.splitlines())) <= width
    assert all(f"{job.best:.4f}" in out for job in jobs) and "2.1000" in out
    assert ("123,456" in out) == ("no room for parameters" not in out) == (width > 70)


@pytest.mark.parametrize("width", [20, 60, 80])
def test_a_list_of_runs(tmp_path, capsys, monkeypatch, width):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    given = ["data.path=a/long/name/of/a/text.txt", "model.hidden_size=512", "optimizer.lr=3e-3"]
    for day, bpc in ((25, 2.5), (26, 2.6)):
        run = tmp_path / f"outputs/2026-11-{day}/10-00-00"
        make_run(run, given[: day - 23], bpc, started=f"2026-11-{day}T10:00:05+00:00")
    report_sweep(tmp_path / "outputs")
    out = capsys.readouterr().out.split("results  ")[0]
    assert max(map(len, out.splitlines())) <= max(width, 60)
    dates = re.findall(r"^2026-11-\d+ 10:00", out, re.M)
    assert dates == (["2026-11-26 10:00", "2026-11-25 10:00"] if width == 80 else [])
    assert "2.5000" in out and "2.6000" in out and "lr=3e-3" in out and "2026-11-25/10-00-00" in out


def test_columns_that_are_left_out():
    table = [["a", "b", "c"], ["1" * 10, "2" * 10, "3" * 10]]
    assert fit_columns(table, 34, ["c", "b"]) == (table, [])
    assert fit_columns(table, 33, ["c", "b"]) == ([row[:2] for row in table], ["c"])
    assert fit_columns(table, 9, ["c", "x", "b"]) == ([row[:1] for row in table], ["c", "b"])
    assert fit_columns(table, 33, [], folded="c") == (table, [])
