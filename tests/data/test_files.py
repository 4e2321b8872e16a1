"""Files: which ones a path names, in which order, and their bytes, decompressed."""

import bz2
import gzip
import lzma
import sys
import zipfile
from pathlib import Path

import pytest
from backports import zstd

from charrnn import InputError
from charrnn.data.files import find_files, read_bytes


def test_globs_are_sorted_and_lists_are_not(tmp_path, monkeypatch):
    for name in ("c.txt", "a.txt", "b.txt", "d.md", "deep/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "folder.txt").mkdir()  # no file, so none of a glob's
    names = lambda path: [f.relative_to(tmp_path).as_posix() for f in find_files(path)]  # noqa: E731
    assert names(f"{tmp_path}/*.txt") == ["a.txt", "b.txt", "c.txt"]
    assert names(f"{tmp_path}/**/*.txt") == ["a.txt", "b.txt", "c.txt", "deep/e.txt"]
    assert names([f"{tmp_path}/d.md", f"{tmp_path}/[ba].txt"]) == ["d.md", "a.txt", "b.txt"]
    (tmp_path / "[ab].txt").write_text("a file of that very name")
    assert names(f"{tmp_path}/[ab].txt") == ["[ab].txt"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("a.txt") == names("~/a.txt") == names(Path("a.txt")) == ["a.txt"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.txt", "data.path=.*missing.txt: no such file"),
        ("*.missing", "no such file"),
        ("", "holds no file"),
        (["text.txt", "missing.txt"], "missing.txt: no such file"),
    ],
    ids=["missing", "glob", "folder", "in-a-list"],
)
def test_missing_files_are_named(tmp_path, path, words):
    if path:
        (tmp_path / "text.txt").write_bytes(b"hello")
    names = [f"{tmp_path}/{p}" for p in ([path] if isinstance(path, str) else path)]
    with pytest.raises(InputError, match=words):
        find_files(names if isinstance(path, list) else names[0])


def test_an_empty_list():
    with pytest.raises(InputError, match=r"data\.path names no file"):
        find_files([])


def test_a_folder_is_all_files_below_it(tmp_path):
    for name in ("b.txt", "a/z.txt", "a.txt", "a/.hidden", ".git/config", "c/d/e.md", "a-b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "c" / "up").symlink_to(tmp_path)  # a cycle
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = [f.relative_to(tmp_path).as_posix() for f in find_files(str(tmp_path))]
    assert found == ["a-b.txt", "a.txt", "a/z.txt", "b.txt", "c/d/e.md"]
    both = find_files([f"{tmp_path}/c", f"{tmp_path}/b.txt", f"{tmp_path}/a"])
    assert [f.name for f in both] == ["e.md", "b.txt", "z.txt"]


COMPRESS = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress,
            ".zst": zstd.compress}  # fmt: skip
DATA = bytes(range(256)) * 40 + "aé€😀".encode()


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("block", [7, 1 << 20])
def test_compressed_files(tmp_path, monkeypatch, suffix, block):
    monkeypatch.setattr("charrnn.data.files.BLOCK", block)
    packed, plain = tmp_path / f"text.txt{suffix}", tmp_path / "text.txt"
    compress = COMPRESS[suffix]
    packed.write_bytes(compress(DATA) + compress(b"more"))  # two frames, as of cat a.gz b.gz
    plain.write_bytes(b"plain")
    read = []
    assert b"".join(read_bytes([packed, plain], progress=read.append)) == DATA + b"moreplain"
    assert sum(read) == packed.stat().st_size + 5
    assert b"".join(read_bytes([packed, plain], max_bytes=11)) == DATA[:11]
    assert b"".join(read_bytes([packed], decompress=False)) == packed.read_bytes()


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", [lambda d: d[:-5], lambda d: b"x" + d[1:]], ids=["cut", "head"])
def test_damaged_compressed_files_are_named(tmp_path, suffix, damage):
    file = tmp_path / f"text.txt{suffix}"
    file.write_bytes(damage(COMPRESS[suffix](DATA)))
    with pytest.raises(InputError, match=rf"text\.txt\{suffix}: cannot be read \(.+\)$"):
        list(read_bytes([file]))


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_zip_archives_of_one_file(tmp_path, monkeypatch, block):
    monkeypatch.setattr("charrnn.data.files.BLOCK", block)
    file = tmp_path / "text.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        archive.writestr("folder/text", DATA)
    read = []
    assert b"".join(read_bytes([file], progress=read.append)) == DATA
    assert min(read) >= 0 and sum(read) <= file.stat().st_size
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(InputError, match=r"text\.zip: cannot be read \(.+\)$"):
        list(read_bytes([file]))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("more", DATA)
    with pytest.raises(InputError, match=r"text\.zip: holds 2 files, not one; unpack it"):
        list(read_bytes([file]))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    file = tmp_path / "text.zst"
    file.write_bytes(zstd.compress(DATA))
    for name in ("compression", "backports"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"text\.zst: .*pip install 'charrnn\[zst\]'"):
        list(read_bytes([file]))
