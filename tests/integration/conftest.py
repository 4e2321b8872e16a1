"""Fixtures of whole command lines."""

import pytest
from helpers import TEXT, short_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, command):
    """The folder of a short run of the command."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, "utf-8")
    result = command("train.py", *short_run(folder))
    assert result.code == 0, result.err
    return folder / "run"
