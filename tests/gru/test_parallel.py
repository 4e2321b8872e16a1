"""The threads of the kernels, where cores are shared: the pool, forks, signals, several callers."""

import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from charrnn.gru import GATES, GRU, RESETS, bf16, build

LARGE = (17, 16, 64)
"""T, B, H: a size for which the kernels use two threads."""
ALL, HALF = 1, 2
"""How many threads of the pool work: arguments of use_pool."""


@pytest.fixture
def pool():
    """Two threads, and the pool in place of OpenMP."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    build.library().use_pool(ALL)
    yield
    build.library().use_pool(0)
    torch.set_num_threads(before)


def layer(seed=0):
    """A layer and its inputs."""
    steps, rows, hidden = LARGE
    torch.manual_seed(seed)
    return GRU(hidden, hidden, backend="native"), torch.randn(steps, rows, hidden)


def numbers(gru, inputs):
    """Outputs and gradients of a layer."""
    output, _ = gru(inputs, inputs.new_zeros(1, *inputs.shape[1:]))
    return [output, *torch.autograd.grad(output.sum(), list(gru.parameters()))]


def equal(found, expected):
    return all(map(torch.equal, found, expected))


def test_pool_gives_the_bits_of_openmp(pool):
    found = numbers(*layer())
    build.library().use_pool(0)
    assert equal(numbers(*layer()), found)


SIZES = [(17, 16, 64), (19, 13, 70), (7, 75, 66)]
"""T, B, H: blocks of the same and of different sizes, of one and of several tiles."""
VARIANTS = list(itertools.product(SIZES, RESETS, GATES))


def computing(size, reset, gate, kind, dtype):
    """A function of threads and use_pool that returns the outputs and all gradients of a layer."""
    steps, rows, hidden = size
    torch.manual_seed(rows)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    gru = GRU(21, hidden, backend="native", reset=reset, gate=gate).to(kept)
    state = torch.randn(1, rows, hidden, dtype=kept, requires_grad=True)
    leaves = [*gru.parameters(), state]
    if kind == "features":
        inputs = torch.randn(steps, rows, 21, dtype=kept, requires_grad=True)
        leaves.append(inputs)
    else:
        inputs = torch.randint(21, (steps, rows))

    def compute(threads, how):
        torch.set_num_threads(threads)
        build.library().use_pool(how)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output, _ = gru(inputs, state)
        return [output, *torch.autograd.grad((output * output).sum(), leaves)]

    return compute


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["features", "indices"])
def test_blocks_that_a_thread_takes_together_give_the_bits_of_separate_ones(pool, dtype, kind):
    """Every variant, divided for 2 to 4 threads, of which half work."""
    if dtype == torch.bfloat16 and build.library().bf16_path() != bf16.PATHS["amx"]:
        pytest.skip("the processor has no AMX")
    for variant in VARIANTS:
        compute = computing(*variant, kind, dtype)
        for threads in (2, 3, 4):
            assert equal(compute(threads, ALL), compute(threads, HALF)), (*variant, threads)


def test_several_callers_at_once(pool):
    layers = [layer(seed) for seed in range(4)]
    expected, results = [numbers(*each) for each in layers], []

    def call(number):
        for _ in range(10):
            results.append(equal(numbers(*layers[number]), expected[number]))

    threads = [threading.Thread(target=call, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


def test_a_forked_process_computes(pool):
    """Also one that is forked while another thread computes."""
    case, stop = layer(), threading.Event()
    expected = numbers(*case)

    def compute():
        while not stop.is_set():
            numbers(*layers)

    layers = layer(1)
    thread = threading.Thread(target=compute)
    thread.start()
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            signal.alarm(20)
            os._exit(0 if equal(numbers(*case), expected) else 1)
        children.append(child)
    stop.set()
    thread.join()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert equal(numbers(*case), expected)


PROCESS = """
import os, pathlib, signal, sys, threading, time, torch
from charrnn.gru import build, native
build._result = build.load(pathlib.Path(sys.argv[1]))  # that of this process's flags
torch.set_num_threads(2)
build.library().use_pool(1)
x, bias, out = torch.ones(256, 256), torch.zeros(256), torch.empty(256, 256)
def forever():
    while True:  # only kernels: torch itself may abort where a daemon uses it at the end
        native.call("tanh_table", x, bias, out, 256, 256)
threading.Thread(target=forever, daemon=True).start()
threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
time.sleep(60)
"""


def test_a_process_ends():
    """By a signal, which a sleeping main thread gets, while a daemon thread computes."""
    library = build.library()._name
    process = subprocess.Popen([sys.executable, "-c", PROCESS, library], stderr=subprocess.PIPE)
    _, error = process.communicate(timeout=50)
    assert process.returncode == -signal.SIGINT and b"KeyboardInterrupt" in error
