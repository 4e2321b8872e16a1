"""Saving containers and tensors: an error of the disk is an OSError, wherever the disk was full."""

import errno
import io

import pytest
import torch

from charrnn.checkpoint import files, save


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
