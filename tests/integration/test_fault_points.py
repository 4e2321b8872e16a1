"""Every moment at which a disk or a process may fail: see tests/fault_points.

Counted are the calls by which a run, a resumed run, a sweep, an export and an encoding change
files: writes, flushes, renames, links, folders, truncations, large mappings. Each fails in four
ways, or the process is killed before or after it; and after each the power is cut, which loses or
cuts what was not flushed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "fault_points"


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the calls are counted by a C library, for which there is no compiler here")
    file = tmp_path_factory.mktemp("shim") / "shim.so"
    flags = ("-O1", "-Wall", "-shared", "-fPIC")
    subprocess.run([compiler, *flags, "-o", file, HERE / "shim.c", "-ldl"], check=True)
    return file


def try_points(shim, folder, share, *limit):
    """Try a share of the points; returns those tried and held, and what did not hold."""
    done = subprocess.run(
        [sys.executable, HERE / "points.py", folder, str(share), *limit], stdout=subprocess.PIPE,
        env=os.environ | {"LD_PRELOAD": str(shim)}, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    for name, tally in found.items():
        print(f"{name}: {tally['held']} of {tally['tried']} held")
    failures = [f"{name}: {line}" for name, t in found.items() for line in t["failures"]]
    return sum(t["tried"] for t in found.values()), failures


def test_some_points(shim, tmp_path):
    tried, failures = try_points(shim, tmp_path, 0.006)
    assert not failures, failures[0]
    assert tried > 40


@pytest.mark.slow
def test_every_point(shim, tmp_path):
    tried, failures = try_points(shim, tmp_path, 1)
    print(f"{tried} points were tried, and {tried - len(failures)} held")
    assert not failures, failures[:5]
    assert tried >= 5000
