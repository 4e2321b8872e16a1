"""How many threads work while cores are shared: half of them, unless all are clearly faster."""

import subprocess

import pytest

from charrnn.gru import compile as compiler


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """A function from the number of threads and (until, half, all) to pairs (share, all faster)."""
    program = tmp_path_factory.mktemp("share") / "share"
    source = str(__file__).replace("test_share.py", "share.cpp")
    command = [*compiler.find_compiler(), "-std=c++17", "-I", str(compiler.FOLDER), source]
    subprocess.run([*command, "-o", str(program)], check=True)

    def run(threads, *lines):
        arguments = [str(threads), *(str(number) for line in lines for number in line)]
        out = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
        found = [line.split() for line in out.stdout.splitlines()]
        return [(float(share), all == "1") for share, all in found]

    return run


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_half_of_the_threads_where_all_are_little_faster(shares, threads):
    """As beside a busy process, and where two trainings share two cores."""
    for all in (0.5, 1.15, 20.0):
        ((share, faster),) = shares(threads, (8000, 0.6, all))
        assert not faster
        assert share < (0.05 if all < 2 else 0.15)  # trials are rare; a kernel is their least


def test_all_threads_where_these_are_clearly_faster(shares):
    ((share, faster),) = shares(2, (8000, 1.0, 0.6))
    assert faster and share > 0.9


def test_another_program_comes_and_goes(shares):
    gone, there = (1.0, 0.55), (1.0, 1.3)
    found = shares(2, (2000, *gone), (6000, *there), (8000, *gone))
    assert [faster for _, faster in found] == [True, False, True]
    assert found[1][0] < 0.15 and found[2][0] > 0.6  # noticed within half a second
