"""Jobs of a sweep read from their folders, whole, running or damaged, and their report."""

import csv
import shlex

import pytest

from charrnn.errors import InputError
from charrnn.runs.lock import run_lock
from charrnn.runs.records import read_record, write_record
from charrnn.runs.report import report_sweep
from charrnn.runs.sweep import read_job, read_jobs


def make_job(run, state, bpc=(), overrides=()):
    (run / ".hydra").mkdir(parents=True)
    write_record(run, overrides, state)
    rows = "".join(f"{10 * i},{value},100\n" for i, value in enumerate(bpc))
    (run / "metrics.csv").write_text(f"step,val/bpc,train/chars_per_second\n{rows}")
    return run


def test_states(tmp_path):
    for state, expected in (("finished", "finished"), ("running", "interrupted")):
        assert read_job(make_job(tmp_path / state, state)).state == expected
    with run_lock(tmp_path / "running"):
        assert read_job(tmp_path / "running").state == "running"
    (tmp_path / "new" / ".hydra").mkdir(parents=True)
    assert read_job(tmp_path / "new").state == "interrupted"


def test_record_keeps_its_overrides(tmp_path):
    make_job(tmp_path / "0", "running", overrides=["seed=1"])
    write_record(tmp_path / "0", ["seed=2"], "failed", "a reason")
    assert read_record(tmp_path / "0") == {
        "overrides": ["seed=1"], "state": "failed", "reason": "a reason",
    }  # fmt: skip


def test_jobs_are_sorted_by_their_best(tmp_path):
    make_job(tmp_path / "0_a", "finished", [6, 4, 5])
    make_job(tmp_path / "1_b", "failed")
    make_job(tmp_path / "2_c", "finished", [6, 3])
    jobs = read_jobs(tmp_path)
    assert [job.number for job in jobs] == [2, 0, 1]
    assert (jobs[1].best, jobs[1].last, jobs[1].speed) == (4, 5, 100)


@pytest.mark.parametrize("program", ["python train.py", "charrnn train"])
def test_failed_jobs_are_printed_with_their_command(tmp_path, capsys, program):
    given = ["sweep=lr", "data.path='a b.txt'", "launcher=joblib"]
    make_job(tmp_path / "0", "failed", overrides=given)
    report_sweep(tmp_path, program)
    lines = capsys.readouterr().out.splitlines()
    (command,) = (line.strip() for line in lines if line.startswith(f"    {program} "))
    assert shlex.split(command.removeprefix(program)) == [*given[:2], "hydra.mode=RUN"]


def test_folder_without_jobs(tmp_path):
    with pytest.raises(InputError, match="no runs there"):
        report_sweep(tmp_path)


BROKEN = {
    "job.json": ['{"overr', "[1, 2]", '{"overrides": "abc", "state": 3, "reason": ""}', "null"],
    "overrides.yaml": ["- 3", ": : [", "abc"],
    "about.yaml": ["[a]", "parameters: many", b"\xff\xfe"],
    "../metrics.csv": [b"step,val/bpc\n\xff,1", b"step\n\0", "step,val/bpc\nx,y"],
}


def test_damaged_jobs_are_part_of_the_report(tmp_path, capsys):
    jobs = [(file, content) for file, contents in BROKEN.items() for content in contents]
    for number, (file, content) in enumerate(jobs):
        folder = tmp_path / str(number) / ".hydra"
        folder.mkdir(parents=True)
        content = content if isinstance(content, bytes) else content.encode()
        (folder / file).write_bytes(content)
    assert len(report_sweep(tmp_path)) == len(jobs)
    with open(tmp_path / "results.csv", newline="") as f:
        assert len(list(csv.DictReader(f))) == len(jobs)
    capsys.readouterr()
    (tmp_path / "results.html").unlink()
    (tmp_path / "results.html").mkdir()
    with pytest.raises(InputError, match=r"results.html: cannot be written"):
        report_sweep(tmp_path)
    assert "interrupted" in capsys.readouterr().out and not list(tmp_path.glob(".*"))
