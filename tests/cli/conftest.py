"""Fixtures of the command line's tests."""

import os
import shutil

import pytest
import torch
from helpers import TEXT, load


@pytest.fixture(scope="session")
def folder(tmp_path_factory, trained):
    """A folder with texts and checkpoints, good and bad; nothing may be added to it."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "good.txt").write_text(TEXT, "utf-8")
    (folder / "empty.txt").touch()
    (folder / "one.txt").write_text("x")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    last = trained / "checkpoints" / "last.ckpt"
    (folder / "torn.ckpt").write_bytes(last.read_bytes()[:-2000])
    (folder / "text.ckpt").write_text(TEXT)
    torch.save({"state_dict": {}}, folder / "other.ckpt")
    checkpoint = load(last)
    checkpoint["charrnn"]["format"] = 99
    torch.save(checkpoint, folder / "newer.ckpt")
    shutil.copytree(trained, folder / "run")
    return folder
