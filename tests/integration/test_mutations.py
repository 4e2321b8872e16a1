"""What makes files durable or exclusive, taken away line by line: each time a test fails.

The lines are found by the rule of ``tests/mutants.py``; a new one is tried without being listed.
"""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT
from mutants import mutants

ALL = mutants()
FAULTS, RESUMED = "integration/test_faults.py", "integration/test_resume.py"
BYTES, PATHS = "integration/test_every_byte.py", "integration/test_paths.py"
TESTS = {
    # Of a room, or of one of its files: the tests that are run, the quick ones first.
    "api": ["api"],
    "analysis": ["analysis"],
    "callbacks": ["callbacks", FAULTS, RESUMED, PATHS, "integration/test_train.py"],
    "checkpoint": ["checkpoint", BYTES, FAULTS],
    "cli": ["cli/test_folders.py", "cli/test_search.py", RESUMED, PATHS, FAULTS,
            "integration/test_sweeps.py", "evaluation/test_compression.py", "api"],
    "data": ["data", BYTES, "integration/test_corpora.py"],
    "evaluation": ["evaluation", BYTES, "integration/test_evaluate.py"],
    "export": ["export", "integration/test_export.py"],
    "generation": ["generation/test_session.py", BYTES],
    "gru": ["gru/test_build.py", "gru/test_nvrtc.py", "integration/test_native_build.py"],
    "runs": ["runs", "cli/test_search.py", FAULTS, "integration/test_sweeps.py"],
}  # fmt: skip


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project, in which lines are changed."""
    folder = tmp_path_factory.mktemp("copied") / "project"
    leave = shutil.ignore_patterns(".git", "outputs", "multirun", "__pycache__", "results")
    return shutil.copytree(ROOT, folder, ignore=leave)


def test_the_rule_finds_them():
    for mutant in ALL:
        compile(mutant.source, mutant.file, "exec")
        assert mutant.file.split("/")[0] in TESTS, mutant
    known = {(mutant.file, mutant.before) for mutant in ALL}
    assert known > {
        ("checkpoint/files.py", "os.fsync(file.fileno())"),
        ("checkpoint/files.py", "os.replace(scratch, path)"),
        ("cli/folders.py", '(run / ".hydra").mkdir(parents=True)'),
        ("cli/train.py", "run_lock(job.folder)"),
        ("checkpoint/serialization.py", "archive.testzip()"),
    }
    assert len(ALL) > 60


@pytest.mark.slow
@pytest.mark.parametrize("mutant", ALL, ids=str)
def test_a_line_taken_away_is_noticed(copied, mutant):
    path = copied / "charrnn" / mutant.file
    text = path.read_text("utf-8")
    path.write_text(mutant.source, "utf-8")
    tests = ["test_one_way.py", *TESTS[mutant.file.split("/")[0]]]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", *(f"tests/{t}" for t in tests)],
            cwd=copied, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(copied)},
        )  # fmt: skip
    finally:
        path.write_text(text, "utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(f"{mutant} | {failed[0].split(' - ')[0] if failed else done.returncode}")
    # A library of which a part is missing ends the process itself.
    assert done.returncode == 1 or done.returncode < 0, done.stdout[-2000:]
