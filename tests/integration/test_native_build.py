"""The native library in processes: concurrent builds, a killed compiler, and after a fork."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT

SCRIPT = """
import torch
from charrnn.gru import GRU, build
build.FLAGS[0] = "-O0"  # compiles faster
build.SOURCES[:] = [s for s in build.SOURCES if not s.name.startswith("bf16")]
gru = GRU(3, 4, backend="native")
print(gru(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1, 1, 4))[0].shape)
"""


def start(cache, **settings):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)}, **settings,
    )  # fmt: skip


def test_concurrent_processes_build_once(tmp_path):
    """Also after a third process was killed while the compiler was running."""
    killed = start(tmp_path, start_new_session=True)
    assert "building" in killed.stderr.readline()
    while not list(tmp_path.rglob("*.log")):
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(killed.pid, signal.SIGKILL)  # the compiler too, as when a machine stops
    killed.communicate()
    assert not list(tmp_path.rglob("*.digest"))
    processes = [start(tmp_path) for _ in range(2)]
    results = [process.communicate() for process in processes]
    assert [out for out, _ in results] == ["torch.Size([2, 1, 4])\n"] * 2, results
    printed = "".join(err for _, err in results)
    assert printed.count("building the native backend") == printed.count("built in") == 1
    kept = sorted(file.suffix for file in (tmp_path / "charrnn" / "native").iterdir())
    assert kept == [".digest", ".lock", ".so"]


def test_after_a_fork(command, text_file, tmp_path):
    """The command line runs in a process forked from one that imported torch."""
    result = command(
        "train.py", f"data.path={text_file}", f"hydra.run.dir={tmp_path / 'run'}",
        "model.backend=native", "trainer.max_steps=3", "data.seq_len=9", "model.hidden_size=9",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "backend native" in result.out


KERNELS = ["native", "bf16", "loss", "memory", "generate", "generate_low", "beam"]
KERNELS += ["optimizer", "parallel"]
BUILDS = {
    "vectors_of_256_bits": {"CHARRNN_MARCH": "x86-64-v3"},
    "vectors_of_128_bits": {"CHARRNN_MARCH": "x86-64-v2"},
    "clang": {"CXX": "clang++"},
    "sanitizers": {"ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0"},
}
RUN = """
import sys
import pytest
from charrnn.gru import build
build.FLAGS += sys.argv[1].split()
sys.exit(pytest.main(["-n", "0", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_kernels_of_another_build(name, tmp_path):
    """The kernels' tests with vectors of other sizes, by Clang, and with GCC's sanitizers."""
    if "MARCH" in str(BUILDS[name]) and platform.machine() != "x86_64":
        pytest.skip("names processors of x86-64")
    if name == "clang" and shutil.which("clang++") is None:
        pytest.skip("no clang++")
    env = os.environ | BUILDS[name] | {"XDG_CACHE_HOME": str(tmp_path)}
    flags = ""
    if name == "sanitizers":
        flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -g1"
        names = ("libasan.so", "libubsan.so")
        ask = [["g++", f"-print-file-name={name}"] for name in names]
        env["LD_PRELOAD"] = " ".join(subprocess.check_output(a, text=True).strip() for a in ask)
    files = [str(ROOT / "tests" / "gru" / f"test_{kernel}.py") for kernel in KERNELS]
    process = subprocess.run(
        [sys.executable, "-c", RUN, flags, *files],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
