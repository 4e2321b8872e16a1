"""Atomic writes: the old file or the new one, complete, whatever interrupts the write."""

import os
import stat
import subprocess
import sys

import pytest
import torch

from charrnn.checkpoint import files
from charrnn.checkpoint.files import atomic_write, link, remove_scratch
from charrnn.checkpoint.format import FORMAT, read
from charrnn.checkpoint.serialization import save


def names(folder):
    return sorted(f.name for f in folder.iterdir())


class Unwritable:
    """Fails in the middle of being written."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.mark.parametrize(
    "error", [RuntimeError, KeyboardInterrupt, OSError], ids=lambda e: e.__name__
)
@pytest.mark.parametrize("where", ["saving", "syncing"])
def test_a_failed_write_leaves_the_old_file_unchanged(tmp_path, monkeypatch, error, where):
    file = tmp_path / "last.ckpt"
    save({"charrnn": {"format": FORMAT}, "old": torch.arange(1000)}, file)
    old = file.read_bytes()
    new = {"tensor": torch.zeros(1000)}
    if where == "saving":
        new["last"] = Unwritable(error())
    else:

        def fail(number):
            raise error()

        monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(error):
        save(new, file)
    assert file.read_bytes() == old and names(tmp_path) == ["last.ckpt"]


def test_a_write_replaces_the_file_atomically(tmp_path, monkeypatch):
    """The old file keeps its name until the new one is flushed to disk."""
    file = tmp_path / "last.ckpt"
    least = {"charrnn": {"format": FORMAT, "settings": {}, "charset": {}}, "state_dict": {}}
    save(least | {"number": 1}, file)
    seen = []
    replace, fsync = os.replace, os.fsync

    def watch(source, target):
        seen.append((read(file)["number"], read(source)["number"]))
        replace(source, target)

    def watch_disk(descriptor):
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "replace", watch)
    monkeypatch.setattr(files.os, "fsync", watch_disk)
    save(least | {"number": 2}, file)
    assert seen == ["file", (1, 2), "folder"]
    assert read(file)["number"] == 2 and names(tmp_path) == ["last.ckpt"]


def test_text_is_utf_8_and_line_ends_stay(tmp_path):
    with atomic_write(tmp_path / "a.csv", "w", newline="") as f:
        f.write("\u00e9\r\n")
        assert not (tmp_path / "a.csv").exists()
    assert (tmp_path / "a.csv").read_bytes() == b"\xc3\xa9\r\n"
    assert names(tmp_path) == ["a.csv"]


def test_the_replaced_file_is_kept_as_previous(tmp_path):
    file, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for content in (b"1", b"2", b"3"):
        with atomic_write(file, previous=previous) as f:
            f.write(content)
    assert file.read_bytes() == b"3" and previous.read_bytes() == b"2"
    assert names(tmp_path) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_link_replaces_a_name(tmp_path, monkeypatch, hard_links):
    def fail(*names):
        raise OSError("no hard links here")

    if not hard_links:
        monkeypatch.setattr(files.os, "link", fail)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    for _ in range(2):  # the second time both names are the same file's already
        link(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_text() == "a" and names(tmp_path) == ["a", "b"]


def test_scratch_files_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (
        f".last.ckpt.{dead.pid}",
        f".a.{os.getpid()}",
        ".b.1",
        ".kept",
        ".c.99999999999999",
    ):
        (tmp_path / name).touch()
    files.remove_scratch(tmp_path)
    assert names(tmp_path) == [".b.1", ".kept"]
    files.remove_scratch(tmp_path / "none")


def test_a_new_folder_and_its_parents_are_flushed(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync", synced.append)
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path / "a", tmp_path]


def test_an_error_of_writing_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left.*last\.ckpt") as caught:
        with atomic_write(tmp_path / "last.ckpt"):
            raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "last.ckpt")


def test_a_second_name_replaces_another_at_once(tmp_path, monkeypatch):
    """At no moment is what had the name before written to, since that may have other names."""
    first, last, kept = (tmp_path / name for name in ("first", "last", "kept"))
    first.write_bytes(b"first")
    last.write_bytes(b"last")
    os.link(last, kept)
    link(first, last)
    assert last.read_bytes() == b"first" and kept.read_bytes() == b"last"
    assert os.path.samefile(first, last) and names(tmp_path) == ["first", "kept", "last"]


def test_a_folder_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", "..", "/", str(tmp_path)):
        with pytest.raises(IsADirectoryError) as caught, atomic_write(name):
            raise AssertionError("nothing is to be written")
        assert caught.value.filename == str(name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "x" * 200])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    with atomic_write(tmp_path / name, previous=tmp_path / "before") as f:
        f.write(b"1")
    link(tmp_path / name, tmp_path / f"{name[:-1]}y")
    (tmp_path / f".{'0' * 64}.{2**31}").touch()  # as a process left it that was killed
    remove_scratch(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {name, f"{name[:-1]}y"}


@pytest.mark.parametrize("target", [None, os.devnull])
def test_a_device_or_a_pipe_is_not_replaced(tmp_path, target):
    """As where a user names /dev/null for what is not wanted."""
    path = tmp_path / "out"
    os.mkfifo(path) if target is None else path.symlink_to(target)
    with pytest.raises(OSError, match="is no regular file"), atomic_write(path):
        pass
    assert list(tmp_path.iterdir()) == [path] and not path.is_file()
