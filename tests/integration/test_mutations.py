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
    "callbacks": ["callbacks", f"{FAULTS} -k before_a_damaged_one"],
    "callbacks/checkpoint.py": ["integration/test_train.py"],
    "checkpoint": ["checkpoint", BYTES, f"{FAULTS} -k before_a_damaged_one"],
    "cli": ["cli/test_folders.py", "cli/test_cli.py", PATHS, FAULTS],
    "cli/checks.py": ["cli/test_cli.py"],
    "cli/fit.py": [f"{FAULTS} -k before_a_damaged_one", RESUMED],
    "cli/interrupts.py": ["cli/test_interrupts.py"],
    "cli/search.py": ["cli/test_search.py", "integration/test_sweeps.py"],
    "cli/sweep.py": [PATHS, "integration/test_sweeps.py"],
    "cli/train.py": [f"{FAULTS} -k two_processes"],
    "data": ["data", BYTES],
    "evaluation": ["evaluation/test_compression.py", "integration/test_evaluate.py"],
    "evaluation/corpus.py": ["evaluation/test_report.py"],
    "export": ["export"],
    "generation": ["generation/test_session.py"],
    "gru": ["gru/test_build.py", "integration/test_native_build.py"],
    "gru/cuda/nvrtc.py": ["gru/test_nvrtc.py"],
    "runs": ["runs", "cli/test_search.py"],
}  # fmt: skip


def chosen_for(file):
    """The tests for a file of charrnn/, each with what is left to pytest's -k."""
    chosen = TESTS.get(file) or TESTS[file.split("/")[0]]
    return ["test_one_way.py", *chosen]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project, in which lines are changed."""
    folder = tmp_path_factory.mktemp("copied") / "project"
    leave = shutil.ignore_patterns(".git", "outputs", "multirun", "__pycache__", "results")
    return shutil.copytree(ROOT, folder, ignore=leave)


def test_the_rule_finds_them():
    for mutant in ALL:
        compile(mutant.source, mutant.file, "exec")
        for test in chosen_for(mutant.file):
            assert (ROOT / "tests" / test.split()[0]).exists(), test
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
    try:
        for test in chosen_for(mutant.file):
            file, *only = test.split()
            command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", f"tests/{file}"]
            # Or pytest would remove the copy, as one of older runs.
            command.append(f"--basetemp={copied.parent / 'of_tests'}")
            done = subprocess.run(
                [*command, *only], cwd=copied, capture_output=True, text=True,
                env=os.environ | {"PYTHONPATH": str(copied)},
            )  # fmt: skip
            if done.returncode:
                break
    finally:
        path.write_text(text, "utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(f"{mutant} | {failed[0].split(' - ')[0] if failed else done.returncode}")
    # A library of which a part is missing ends the process itself.
    assert done.returncode == 1 or done.returncode < 0, done.stdout[-2000:]
