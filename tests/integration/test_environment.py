"""Environments in which commands start: each works, or ends in one line."""

import itertools
import os
import subprocess
import sys
import time

import pytest
from helpers import ROOT, TEXT, TINY, numbers, same, state
from runs_in_process import settings, trained

SHORT = (
    *TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=3", "data.valid_size=50",
    "data.path=text.txt", "model.backend=torch",
)  # fmt: skip

CLOCK = str(ROOT / "tests" / "clock")
# Variables (None: unset), and what the one line says where there is one.
VARIABLES = {
    "output": ({"PYTHONIOENCODING": "ascii"}, ""),
    "C": ({"LC_ALL": "C", "LANG": "C"}, ""),
    "terminal": ({"TERM": "dumb", "COLUMNS": "1", "LINES": "0"}, ""),
    "no width": ({"COLUMNS": "wide"}, ""),
    "no home": ({"HOME": None, "XDG_CACHE_HOME": None}, ""),
    "no folder for files": ({"TMPDIR": "/nowhere"}, ""),
    "a zone": ({"TZ": "Pacific/Kiritimati"}, ""),
    "no zone": ({"TZ": "??"}, ""),
    "ranks": ({"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "MASTER_PORT": "x"}, ""),
    "tasks": ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "5"}, ""),
    "the clock back": ({"PYTHONPATH": CLOCK, "CLOCK_JUMP": "-1e7"}, ""),
    "the clock ahead": ({"PYTHONPATH": CLOCK, "CLOCK_JUMP": "1e7"}, ""),
}
OF_TRAIN = {
    "no cache": ({"HOME": "/proc", "XDG_CACHE_HOME": None}, "data.cache_dir: cannot write"),
    "no number": ({"SLURM_PROCID": "a", "SLURM_NTASKS": "2"}, "SLURM_PROCID=a: this environment"),
    "half of torchrun": ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0"}, "WORLD_SIZE=: this environm"),
    "restarts": ({"SLURM_RESTART_COUNT": "often"}, "SLURM_RESTART_COUNT=often must be"),
}
# In a namespace of the process's own, so that nothing is left mounted.
FULL = (
    "mkdir full; mount -t tmpfs -o size=4k none full || exit 3; head -c 9000 /dev/zero >full/x"
    " 2>/dev/null; export TMPDIR=$PWD/full; "
)
LIMITS = {
    "umask": ("umask 077; ", ""),
    "64 files": ("ulimit -n 64; ", ""),
    "little memory": ("ulimit -v 900000; ", ""),
    "full folder for files": (FULL, ""),
    "no input": ("", " <&-"),
    "no output": ("", " >&-"),
    "no errors": ("", " 2>&-"),
    "nothing": ("", " <&- >&- 2>&-"),
    "a full output": ("", " >/dev/full"),
}
COMMANDS = {
    "train": ["train.py", *SHORT, "hydra.run.dir=run"],
    "sweep": ["train.py", "-m", *SHORT, "seed=1,2", "hydra.sweep.dir=run"],
    "sample": ["sample.py", "checkpoint=trained", "length=20"],
    "evaluate": ["train.py", "mode=evaluate", "checkpoint=trained"],
}


@pytest.fixture
def folder(tmp_path, trained):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    (tmp_path / "trained").symlink_to(trained)
    return tmp_path


def check(code, out, err, expected):
    assert "Traceback" not in out + err, err
    if expected:
        assert code == 2 and err.count("error: ") == 1 and expected in err, (code, err)
    elif code:
        # Libraries may warn besides; where standard error is closed, there is nothing.
        assert code == 2 and err.count("error: ") == bool(err), (code, err)


@pytest.mark.parametrize("name", ["no home", "no folder for files", "ranks", "tasks", *OF_TRAIN])
def test_environment_of_a_run(command, folder, name):
    """In a process that was forked: those that need no new interpreter."""
    variables, expected = (VARIABLES | OF_TRAIN)[name]
    given = {key: value for key, value in variables.items() if value is not None}
    if "XDG_CACHE_HOME" in variables:
        given["XDG_CACHE_HOME"] = "/proc/none" if expected else str(folder / "cache")
    script, *arguments = COMMANDS["train"]
    result = command(script, *arguments, cwd=folder, env=given)
    check(result.code, result.out, result.err, expected)
    assert result.code == (2 if expected else 0), result.err
    assert (folder / "run").exists() == (not expected)


@pytest.mark.slow
@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize("name", [*VARIABLES, *OF_TRAIN, *LIMITS])
def test_environment(folder, name, program):
    """In a process of its own."""
    variables, expected = (VARIABLES | OF_TRAIN).get(name, ({}, ""))
    if name in OF_TRAIN and program != "train":
        expected = ""
    before, after = LIMITS.get(name, ("", ""))
    env = os.environ | {k: v for k, v in variables.items() if v}
    for key in (key for key, value in variables.items() if value is None):
        env.pop(key, None)
    words = [sys.executable, str(ROOT / COMMANDS[program][0]), *COMMANDS[program][1:]]
    line = f"{before}exec {' '.join(words)}{after}"
    own = ["unshare", "--mount", "--map-root-user"] if before == FULL else []
    done = subprocess.run(
        [*own, "bash", "-c", line], cwd=folder, env=env, capture_output=True, timeout=300
    )
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    if program == "sweep" and done.returncode == 1:
        assert "error: " in err and "Traceback" not in err  # of each job
    else:
        check(done.returncode, out, err, expected)
    if name.startswith(("the clock", "full folder")):
        assert done.returncode == 0, err


@pytest.mark.parametrize("jump", [-1e7, 1e7])
def test_the_clock_is_set_while_a_run_trains(tmp_path, monkeypatch, jump):
    """To another time at each look at it; what is trained and written is the same."""
    config = settings(tmp_path, "logger=tensorboard", "callbacks.progress.seconds=0.0")
    trained(config, tmp_path / "whole")
    real, times = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + jump * next(times))
    changed = {"callbacks.checkpoint.every_n_steps": 2}
    trained(config, tmp_path / "run", changed)
    assert same(state(tmp_path / "run"), state(tmp_path / "whole"))
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    trained(config, tmp_path / "run", {"resume": last, "trainer.max_epochs": 2})
    trained(config, tmp_path / "two", {"trainer.max_epochs": 2})
    assert same(state(tmp_path / "run"), state(tmp_path / "two"))
    assert numbers(tmp_path / "run") == numbers(tmp_path / "two")


def test_closed_streams_keep_their_numbers(tmp_path):
    """So that what a library writes to standard error does not go into the next file."""
    code = (
        "import os; from charrnn.cli.streams import reserve_descriptors; reserve_descriptors()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w'); assert file.fileno() > 2\n"
        "os.write(2, b'lost'); os.write(1, b'lost'); file.write('kept')"
    )
    for closed in itertools.combinations(("0<&-", "1>&-", "2>&-"), 2):
        line = f'exec "$0" -c "$1" {" ".join(closed)}'
        subprocess.run(["bash", "-c", line, sys.executable, code], check=True, cwd=ROOT)
        assert (tmp_path / "file").read_text() == "kept"
