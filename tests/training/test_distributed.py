"""Ranks from the environment of torchrun and srun."""

import os

import pytest

from charrnn import InputError
from charrnn.training import distributed
from charrnn.training.distributed import Ranks, current_ranks, is_rank_zero

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
    "SLURM_PROCID": "0", "SLURM_NTASKS": "8",
}  # fmt: skip


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, Ranks(5, 8, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, None),
        (TORCHRUN, Ranks(3, 4, 2)),
        (TORCHRUN | {"RANK": "0"}, Ranks(0, 4, 2)),
    ],
    ids=str,
)
def test_current_ranks(monkeypatch, env, expected):
    for key in [k for k in os.environ if k.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(key)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    assert current_ranks() == expected
    assert is_rank_zero() == (expected is None or expected.rank == 0)


@pytest.mark.parametrize("name", distributed.READ_BY_LIGHTNING)
def test_a_rank_that_is_no_number(monkeypatch, name):
    """Lightning reads it when it is imported."""
    monkeypatch.setenv(name, "first")
    with pytest.raises(InputError, match=f"^{name}=first: this environment variable must be"):
        distributed.check_environment()


class Store:
    """A store to which one more rank comes at each question."""

    def __init__(self, comes):
        self.count, self.comes = 0, comes

    def add(self, key, number):
        self.count += number or self.comes
        return self.count


def test_missing_ranks_are_named(monkeypatch, capsys):
    monkeypatch.setattr(distributed, "SECONDS", -1.0)
    distributed.wait_for_ranks(Store(1), Ranks(0, 4, 4))
    assert capsys.readouterr().err == "waiting for 2 more processes\n"
    distributed.wait_for_ranks(Store(0), Ranks(1, 4, 4))  # rank zero says it
    monkeypatch.setattr(distributed, "WAIT", 0.05)
    with pytest.raises(InputError, match=r"^1 of 2 processes did not come"):
        distributed.wait_for_ranks(Store(0), Ranks(0, 2, 2))
    assert capsys.readouterr().err == "waiting for 1 more process\n"
