"""Folders of runs: who makes one has it."""

import os

import pytest

from charrnn import InputError
from charrnn.cli.folders import claim_run_folder, claim_sweep_folder, free_run_folder


def test_only_the_first_claims_a_folder(tmp_path):
    run = tmp_path / "a" / "run"
    assert free_run_folder(run, is_named=True) == run
    assert claim_run_folder(run) and not claim_run_folder(run)
    assert free_run_folder(run, is_named=False) == tmp_path / "a" / "run-2"
    with pytest.raises(InputError, match="holds a run already"):
        free_run_folder(run, is_named=True)


def test_two_sweeps_that_begin_in_one_second(tmp_path):
    sweep = tmp_path / "12-00-00"
    assert claim_sweep_folder(sweep, is_named=False) == (sweep, [sweep])
    assert claim_sweep_folder(sweep, is_named=False)[0] == tmp_path / "12-00-00-2"
    assert claim_sweep_folder(sweep, is_named=True) == (sweep, [])


def test_a_folder_whose_name_is_no_utf8(tmp_path):
    run = tmp_path / os.fsdecode(b"r\xe9")
    with pytest.raises(InputError, match=r"^hydra\.run\.dir=.*its name is not UTF-8"):
        free_run_folder(run, is_named=True)
