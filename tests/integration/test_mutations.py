"""What makes files durable or exclusive, taken away line by line: each time a test fails."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

FILES, SERIALIZATION = "checkpoint/files.py", "checkpoint/serialization.py"
TABLE = [
    # File of charrnn/, what stands there, what stands there instead, and the tests that must fail.
    (FILES, "            os.fsync(file.fileno())\n", "", "checkpoint/test_files.py"),
    (FILES, "        os.replace(scratch, path)\n", "        shutil.copyfile(scratch, path)\n",
     "checkpoint/test_files.py"),
    (FILES, "        sync(path.parent)  #", "        #", "checkpoint/test_files.py"),
    (FILES, "            link(path, previous)\n", "            pass\n", "checkpoint/test_files.py"),
    (FILES, "        os.replace(scratch, name)\n", "        shutil.copyfile(scratch, name)\n",
     "checkpoint/test_files.py"),
    (FILES, "            scratch.unlink(missing_ok=True)\n\n\n", "            pass\n\n\n",
     "checkpoint/test_files.py"),
    (FILES, "        sync(new.parent)\n", "        pass\n", "checkpoint/test_files.py"),
    (FILES, "            os.fsync(descriptor)\n", "            pass\n", "checkpoint/test_files.py"),
    (SERIALIZATION, "archive.testzip()", "None", "integration/test_every_byte.py"),
    (SERIALIZATION, "i.external_attr & 0x10", "False", "checkpoint/test_serialization.py"),
    ("checkpoint/format.py", 'ours.pop("sha256", None) != checksum(ours, state)',
     'not ours.pop("sha256", None)', "integration/test_every_byte.py"),
    ("checkpoint/newest.py", "not isinstance(error, Damaged)", "True",
     "integration/test_faults.py -k before_a_damaged_one"),
    ("data/cache.py", "if zlib.crc32(json.dumps(meta).encode(), checksum) != expected:",
     "if False:", "integration/test_every_byte.py"),
    ("data/cache.py", "    return hold(lock, ", "    return contextlib.nullcontext(lock or ",
     "data/test_cache.py"),
    ("data/waiting.py", "        lock.acquire(timeout=seconds)\n", "        pass\n",
     "data/test_waiting.py"),
    ("runs/lock.py", "        lock.acquire(timeout=timeout, poll_interval=0.02)\n",
     "        pass\n", "runs/test_lock.py"),
    ("callbacks/metrics_csv.py", "                    os.fsync(f.fileno())\n",
     "                    pass\n", "callbacks/test_metrics_csv.py"),
    ("callbacks/metrics_csv.py", "            os.truncate(self.file, size)\n", "            pass\n",
     "callbacks/test_metrics_csv.py"),
    ("callbacks/csv_logger.py", "        file.replace(kept)", "        pass",
     "callbacks/test_csv_logger.py"),
    ("gru/build.py", ' == digest(file.read_bytes())', ' != ""', "gru/test_build.py"),
    ("generation/session.py", 'if content.get("model") != self._model_checksum():', "if False:",
     "generation/test_session.py"),
    ("cli/folders.py", '(run / ".hydra").mkdir(parents=True)',
     '(run / ".hydra").mkdir(parents=True, exist_ok=True)', "cli/test_folders.py"),
    ("cli/sweep.py", "    check_same_job(job)\n", "",
     "integration/test_paths.py -k folder_of_another"),
]  # fmt: skip


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project, in which lines are changed."""
    folder = tmp_path_factory.mktemp("copied") / "project"
    leave = shutil.ignore_patterns(".git", "outputs", "multirun", "__pycache__", "results")
    return shutil.copytree(ROOT, folder, ignore=leave)


def test_the_lines_are_there():
    for file, before, _, tests in TABLE:
        text = (ROOT / "charrnn" / file).read_text("utf-8")
        assert text.count(before) == 1, (file, before)
        assert (ROOT / "tests" / tests.split()[0]).exists(), tests


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}: {row[1].strip()}")
def test_a_line_taken_away_is_noticed(copied, row):
    file, before, after, tests = row
    path = copied / "charrnn" / file
    text = path.read_text("utf-8")
    path.write_text(text.replace(before, after), "utf-8")
    first, *rest = tests.split()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", f"tests/{first}", *rest],
            cwd=copied, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(copied)},
        )  # fmt: skip
    finally:
        path.write_text(text, "utf-8")
    # A library of which a part is missing ends the process itself.
    assert done.returncode == 1 or done.returncode < 0, done.stdout[-2000:]
