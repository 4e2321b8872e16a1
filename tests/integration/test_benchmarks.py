"""Benchmarks as commands: with the backend that is chosen by default, and with whole trainings."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT

COMMANDS = {
    "sampling": "--size 9,2 --samples 1 --samples 3 --length 40 --seconds 0.1",
    "scaling": "--processes 1 --hidden 8 --rows 2 --steps 5 --windows 30 --turns 1",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_benchmark_as_a_command(name, command, tmp_path):
    file = tmp_path / "results.json"
    process = subprocess.run(
        [sys.executable, "-m", f"charrnn.benchmarks.{name}", *COMMANDS[name].split(),
         "--json", file],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    content = json.loads(file.read_text("utf-8"))
    rows = process.stdout.splitlines()[-len(content["results"]) :]
    counts = [str(result["count"]) for result in content["results"]]
    assert [row.split()[-1] for row in rows] == counts
