"""The threads of the kernels, where cores are shared: the pool, forks, signals, several callers."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from charrnn.gru import GRU, build

LARGE = (17, 16, 64)
"""T, B, H: a size for which the kernels use two threads."""


@pytest.fixture
def pool():
    """Two threads, and the pool in place of OpenMP."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    build.library().use_pool(1)
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
x, out = torch.ones(256, 256), torch.empty(256, 256)
def forever():
    while True:  # only kernels: torch itself may abort where a daemon uses it at the end
        native.call("product", x, 256, 1, x, 0, out, 256, 256, 256)
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
