"""Benchmarks run, print a table and write what they measured. No test asks how fast it is."""

import importlib
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

import charrnn.gru.torch as backend

TINY = {
    "training": ["--size", "9,2,3", "--steps", "7", "--reset", "after"],
    "sampling": ["--size", "9,2", "--samples", "1", "--samples", "3", "--length", "40"],
    "encoding": ["--megabytes", "0.05"],
    "loop": ["--hidden", "8", "--rows", "2", "--steps", "5", "--turn", "3"],
}


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_at_tiny_sizes(name, tmp_path):
    file = tmp_path / "results.json"
    process = subprocess.run(
        [sys.executable, "-m", f"charrnn.benchmarks.{name}", *TINY[name], "--seconds", "0.1",
         "--json", str(file)],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    content = json.loads(file.read_text("utf-8"))
    assert content["about"]["machine"] in process.stdout
    rows = process.stdout.splitlines()[-len(content["results"]) :]
    counts = [str(result["count"]) for result in content["results"]]
    assert [row.split()[-1] for row in rows] == counts


@pytest.mark.parametrize("name", ["training", "sampling", "loop"])
def test_a_backend_with_other_numbers_is_not_timed(name, tmp_path, monkeypatch, capsys):
    right = backend.forward

    def wrong(*args, **kwargs):
        outputs, state = right(*args, **kwargs)
        return outputs * 1.1, state * 1.1

    monkeypatch.setattr(backend, "forward", wrong)
    file = tmp_path / "results.json"
    arguments = [*TINY[name], "--backend", "torch", "--seconds", "0.1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit, match=r"error: .* off"):
        importlib.import_module(f"charrnn.benchmarks.{name}").main()
    assert not file.exists()
