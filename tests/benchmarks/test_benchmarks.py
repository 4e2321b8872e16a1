"""Benchmarks run, print a table and write their results. No test checks how fast anything is.

tests/integration/test_benchmarks.py runs them as commands, and with the native backend.
"""

import importlib
import json
import sys

import pytest
import torch

import charrnn.gru.torch as backend

TINY = {
    "training": "--size 9,2,3 --steps 7 --reset after --backend torch",
    "sampling": "--size 9,2 --samples 1 --samples 3 --length 40 --backend torch",
    "encoding": "--megabytes 0.05",
    "loop": "--hidden 8 --rows 2 --steps 5 --turn 3 --backend torch",
}
"""Arguments of each benchmark."""


def run(name, monkeypatch, file):
    arguments = [*TINY[name].split(), "--seconds", "0.1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setattr("os.sched_setaffinity", lambda *args: None, raising=False)
    importlib.import_module(f"charrnn.benchmarks.{name}").main()
    torch.set_num_threads(1)  # as in the other tests


@pytest.mark.parametrize("name", TINY)
def test_benchmark_at_tiny_sizes(name, tmp_path, monkeypatch, capfd):
    file = tmp_path / "results.json"
    run(name, monkeypatch, file)
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
    with pytest.raises(SystemExit, match=r"error: .* off"):
        run(name, monkeypatch, file)
    assert not file.exists()
