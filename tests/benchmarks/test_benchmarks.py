"""Benchmarks run, print a table and write what they measured. No test asks how fast it is."""

import importlib
import json
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

import charrnn.gru.torch as backend
from charrnn import GRUEncode
from charrnn.benchmarks import reckoning

TINY = {
    "training": ["--size", "9,2,3", "--steps", "7", "--reset", "after"],
    "sampling": ["--size", "9,2", "--samples", "1", "--samples", "3", "--length", "40"],
    "encoding": ["--megabytes", "0.05"],
    "scaling": "--processes 1 --hidden 8 --rows 2 --steps 5 --windows 30 --turns 1".split(),
    "loop": ["--hidden", "8", "--rows", "2", "--steps", "5", "--turn", "3"],
}


def test_the_reckoning_counts_what_it_says():
    args = reckoning.parse(["--hidden", "5", "--layers", "3", "--vocab", "9", "--rows", "16"])
    model = GRUEncode(9, 5, 3)
    assert reckoning.parameters(9, 5, 3) == sum(p.numel() for p in model.parameters())
    alone = reckoning.reckon(args, 1, shared=False)
    assert (alone["average"], alone["times"]) == (0, 1)
    for gpus in (8, 64, 1024):
        own, shared = (reckoning.reckon(args, gpus, shared) for shared in (False, True))
        assert own["rows"] == 16 * gpus and shared["rows"] == 16
        assert shared["windows"] == alone["windows"]
        assert 1 < own["times"] < gpus and shared["times"] <= own["times"]
    # The ring within a machine sends (n - 1) / n of the gradients twice.
    args = reckoning.parse(["--inner-latency", "0", "--inner", "1"])
    size = 4 * reckoning.parameters(96, 512, 3)
    assert reckoning.average(args, 4) == pytest.approx(2 * 3 / 4 * size / 1e9)


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_at_tiny_sizes(name, tmp_path, monkeypatch, capfd):
    file = tmp_path / "results.json"
    arguments = [*TINY[name], "--json", str(file)]
    arguments += ["--seconds", "0.1"] if name != "scaling" else []
    if name == "encoding":  # as a person starts one
        subprocess.run(
            [sys.executable, "-m", f"charrnn.benchmarks.{name}", *arguments], cwd=ROOT, check=True
        )
    else:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        importlib.import_module(f"charrnn.benchmarks.{name}").main()
        torch.set_num_threads(1)  # as the other tests have it
    said = capfd.readouterr().out
    content = json.loads(file.read_text("utf-8"))
    assert content["about"]["machine"] in said
    rows = said.splitlines()[-len(content["results"]) :]
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
