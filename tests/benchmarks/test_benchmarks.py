"""Benchmarks run, print a table and write their results. No test checks how fast anything is."""

import importlib
import json
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

import charrnn.gru.torch as backend

TINY = {
    "training": ["--size", "9,2,3", "--steps", "7", "--reset", "after"],
    "sampling": ["--size", "9,2", "--samples", "1", "--samples", "3", "--length", "40"],
    "encoding": ["--megabytes", "0.05"],
    "scaling": "--processes 1 --hidden 8 --rows 2 --steps 5 --windows 30 --turns 1".split(),
    "loop": ["--hidden", "8", "--rows", "2", "--steps", "5", "--turn", "3"],
}


@pytest.mark.parametrize("name", TINY)
def test_benchmark_at_tiny_sizes(name, tmp_path, monkeypatch, capfd):
    file = tmp_path / "results.json"
    arguments = [*TINY[name], "--json", str(file)]
    arguments += ["--seconds", "0.1"] if name != "scaling" else []
    if name == "encoding":  # as a command
        subprocess.run(
            [sys.executable, "-m", f"charrnn.benchmarks.{name}", *arguments], cwd=ROOT, check=True
        )
    else:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        importlib.import_module(f"charrnn.benchmarks.{name}").main()
        torch.set_num_threads(1)  # as in the other tests
    printed = capfd.readouterr().out
    content = json.loads(file.read_text("utf-8"))
    assert content["about"]["machine"] in printed
    rows = printed.splitlines()[-len(content["results"]) :]
    counts = [str(result["count"]) for result in content["results"]]
    assert [row.split()[-1] for row in rows] == counts


@pytest.mark.parametrize("name", ["training", "sampling", "loop"])
def test_backend_with_wrong_results_is_not_timed(name, tmp_path, monkeypatch, capsys):
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
