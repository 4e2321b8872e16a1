"""When half of the threads work: ``csrc/cores.h``, compiled into a program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from charrnn.gru import compile as compiler


@pytest.fixture(scope="module")
def decide(tmp_path_factory):
    """A function from threads and the cores left in turn to decisions, and the cores here."""
    program = tmp_path_factory.mktemp("cores") / "cores"
    source = Path(__file__).with_name("cores.cpp")
    command = [*compiler.find_compiler(), "-std=c++17", "-I", str(compiler.FOLDER), str(source)]
    subprocess.run([*command, "-o", str(program)], check=True)

    def run(threads, *left):
        arguments = [str(threads), *map(str, left)]
        out = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
        *decisions, here = out.stdout.split()
        return decisions[0] if decisions else "", float(here)

    return run


def test_half_while_others_use_a_core_and_all_when_they_stop(decide):
    assert decide(2, 1.95, 1.2, 1.0, 0.97, 1.9, 2.0)[0] == "011100"
    assert decide(8, 7.9, 7.0, 4.0, 7.8)[0] == "0110"


def test_all_where_half_get_less_than_a_core_each(decide):
    """Tried again after 2 s, and after 4 s if it is still so."""
    decisions, _ = decide(2, *[0.6] * 40)
    assert [i for i, on in enumerate(decisions) if on == "1"] == [0, 11, 32]


def test_all_where_the_system_does_not_say(decide):
    assert decide(2, -1, -1)[0] == "00"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/stat")
def test_cores_left_are_between_none_and_all(decide):
    assert 0 <= decide(2)[1] <= len(os.sched_getaffinity(0)) + 0.3
