"""Saving and verifying files: errors of the disk are OSErrors, and changed bytes are found."""

import errno
import io

import pytest
import torch
from helpers import same

from charrnn.checkpoint import files, save, serialization


class FullDisk(io.FileIO):
    """A file on a disk that is full after some bytes."""

    def __init__(self, *args, room=0, **settings):
        super().__init__(*args, **settings)
        self.room = room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)

    def fileno(self):
        return super().fileno()


@pytest.mark.parametrize("room", [0, 1, 100, 1000, 3000, 4500])
def test_a_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch, room):
    """Also in the middle of the archive, where the zip writer raises a RuntimeError."""
    file = tmp_path / "model.ckpt"
    save({"before": torch.zeros(3)}, file)
    before = file.read_bytes()

    def full(path, mode, **settings):
        return FullDisk(path, mode.replace("b", ""), room=room)

    monkeypatch.setattr(files, "open", full, raising=False)
    with pytest.raises(OSError) as caught:
        save({"weights": torch.zeros(1000)}, file)
    assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


@pytest.mark.parametrize("mask", [1, 16, 64, 255])
def test_a_changed_directory_is_an_error_or_changes_nothing(tmp_path, mask):
    """Also what zipfile's own check of the archive passes and torch reads as memory."""
    file = tmp_path / "weights.ckpt"
    content = {"weights": torch.arange(6.0), "bias": torch.ones(300, dtype=torch.int32)}
    serialization.save(content, file)
    data = file.read_bytes()
    detected = 0
    for position in range(data.index(b"PK\1\2"), len(data)):
        file.write_bytes(data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :])
        try:
            assert same(serialization.load(file), content)
        except serialization.Damaged:
            detected += 1
    assert detected > 100
