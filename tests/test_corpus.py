"""Corpus: what is read, how it is encoded in pieces, and the cache, torn or whole."""

import hashlib
import json
import os
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from charrnn import Charset, InputError, corpus
from charrnn.corpus import find_files, open_corpus, stdlib_files
from charrnn.datamodule import CharDataModule

# One to four bytes a character, a newline of each kind, bytes that are none of UTF-8.
MIXED = "aé€\U0001f600\r\nb\rc\n\0".encode() + b"\xff\xc3" + "żółć".encode()


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def encodings(monkeypatch):
    """The calls of encode, which a cached text makes none of."""
    calls, encode = [], corpus.encode
    monkeypatch.setattr(corpus, "encode", lambda *a: calls.append(a) or encode(*a))
    return calls


def write(tmp_path, data, name="text.txt"):
    file = tmp_path / name
    file.write_bytes(data)
    return file


def text_of(found):
    return found.charset.decode(found.tokens.tolist())


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 22])
def test_pieces_make_the_whole(tmp_path, cache_dir, monkeypatch, unit, chunk):
    """Whatever the size of a piece, also where its border lies inside a character."""
    monkeypatch.setattr(corpus, "CHUNK", chunk)
    found = open_corpus([write(tmp_path, MIXED)], unit, cache_dir=cache_dir)
    text = MIXED.decode("utf-8", "replace") if unit == "char" else MIXED
    assert found.charset == Charset.from_text(text, unit)
    expected = found.charset.encode(text)
    assert np.array_equal(found.tokens.numpy(), expected)
    assert found.tokens.numpy().dtype == expected.dtype
    assert found.sha256 == hashlib.sha256(MIXED).hexdigest()


def test_newlines_stay_and_undecodable_bytes_are_unknown(tmp_path, cache_dir):
    found = open_corpus([write(tmp_path, b"a\r\nb\rc\n\xff\xfed\xc3")], cache_dir=cache_dir)
    assert text_of(found) == "a\r\nb\rc\n\ufffd\ufffdd\ufffd"
    assert found.tokens[7].item() == 0 and "\ufffd" not in found.charset.alphabet


@pytest.mark.parametrize(("characters", "dtype"), [(255, "uint8"), (256, "uint16")])
def test_smallest_type(tmp_path, cache_dir, characters, dtype):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + characters)))
    found = open_corpus([write(tmp_path, text.encode())], cache_dir=cache_dir)
    assert found.tokens.numpy().dtype == dtype and text_of(found) == text


@pytest.mark.parametrize("max_bytes", range(2, 11))
def test_max_bytes_cuts_between_characters(tmp_path, cache_dir, max_bytes):
    file = write(tmp_path, "aé€😀".encode())  # 1 + 2 + 3 + 4 bytes
    found = open_corpus([file], max_bytes=max_bytes, cache_dir=cache_dir) if max_bytes > 2 else None
    if max_bytes == 2:  # the second byte is half of é
        with pytest.raises(InputError, match="has 1 characters"):
            open_corpus([file], max_bytes=max_bytes, cache_dir=cache_dir)
    else:
        whole = {3: "aé", 6: "aé€", 10: "aé€😀"}
        assert text_of(found) == whole[max(n for n in whole if n <= max_bytes)]


def test_a_cut_text_is_not_taken_for_a_whole_one(tmp_path, cache_dir):
    """The same bytes, of which the last are half a character: cut there, or ending so."""
    whole, torn = write(tmp_path, "abé".encode()), write(tmp_path, b"ab\xc3", "torn.txt")
    assert text_of(open_corpus([whole], max_bytes=3, cache_dir=cache_dir)) == "ab"
    assert text_of(open_corpus([torn], cache_dir=cache_dir)) == "ab\ufffd"


def test_max_bytes_counts_all_files(tmp_path, cache_dir):
    files = [write(tmp_path, b"abc", "1"), write(tmp_path, b"def", "2"), tmp_path / "missing"]
    assert text_of(open_corpus(files, max_bytes=5, cache_dir=cache_dir)) == "abcde"
    assert text_of(open_corpus(files, max_bytes=6, cache_dir=cache_dir)) == "abcdef"


def test_files_are_one_text(tmp_path, cache_dir):
    files = [write(tmp_path, "aé".encode()[:2], "1"), write(tmp_path, "aé".encode()[2:], "2")]
    assert text_of(open_corpus(files, cache_dir=cache_dir)) == "aé"


def test_cached_by_content(tmp_path, cache_dir, encodings):
    file = write(tmp_path, b"hello hello")
    first = open_corpus([file], cache_dir=cache_dir)
    copy = open_corpus([write(tmp_path, b"hello hello", "copy")], cache_dir=cache_dir)
    assert len(encodings) == 1
    assert copy.tokens.equal(first.tokens) and copy.charset == first.charset
    open_corpus([file], "byte", cache_dir=cache_dir)
    assert len(encodings) == 2
    stat = file.stat()
    file.write_bytes(b"hellohello ")  # the same size, and made to look as old
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert text_of(open_corpus([file], cache_dir=cache_dir)) == "hellohello "
    assert text_of(first) == "hello hello"


def broken(name, data):
    return lambda folder: (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "tokens.bin", 5),
        lambda folder: os.truncate(folder / "tokens.bin", 0),
        lambda folder: (folder / "tokens.bin").unlink(),
        lambda folder: (folder / "meta.json").unlink(),
        broken("meta.json", b""),
        broken("meta.json", b'{"charset": {"chara'),
        broken("meta.json", b"[]"),
        broken("meta.json", b"\xff"),
        broken("meta.json", b'{"size": 11, "dtype": "uint8"}'),
        broken("meta.json", b'{"size": 11, "dtype": "word", "charset": {"characters": "a"}}'),
        broken("meta.json", b'{"size": 11, "dtype": "uint8", "charset": {"letters": "a"}}'),
    ],
    ids=["cut", "empty", "no-tokens", "no-meta", "empty-meta", "half-meta", "list-meta",
         "binary-meta", "no-charset", "no-such-type", "other-charset"],
)  # fmt: skip
def test_a_torn_cache_is_made_anew(tmp_path, cache_dir, encodings, damage):
    file = write(tmp_path, b"hello hello")
    open_corpus([file], cache_dir=cache_dir)
    (folder,) = (cache_dir / "corpus").iterdir()
    damage(folder)
    assert text_of(open_corpus([file], cache_dir=cache_dir)) == "hello hello"
    assert len(encodings) == 2
    assert list((cache_dir / "corpus").iterdir()) == [folder]
    assert json.loads((folder / "meta.json").read_text())["size"] == 11


def test_an_exception_while_encoding_leaves_nothing(tmp_path, cache_dir, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus.json, "dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        open_corpus([write(tmp_path, b"hello")], cache_dir=cache_dir)
    assert not list((cache_dir / "corpus").iterdir())


def test_a_removed_cache_does_not_pull_the_text_away(tmp_path, cache_dir):
    found = open_corpus([write(tmp_path, b"hello")], cache_dir=cache_dir)
    shutil.rmtree(cache_dir)
    assert text_of(found) == "hello"


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
        ("", "is a folder"),
        (["text.txt", "missing.txt"], "missing.txt: no such file"),
    ],
    ids=["missing", "glob", "folder", "in-a-list"],
)
def test_what_is_no_file(tmp_path, path, words):
    write(tmp_path, b"hello")
    names = [f"{tmp_path}/{p}" for p in ([path] if isinstance(path, str) else path)]
    with pytest.raises(InputError, match=words):
        find_files(names if isinstance(path, list) else names[0])


def test_an_empty_list():
    with pytest.raises(InputError, match=r"data\.path names no file"):
        find_files([])


@pytest.mark.parametrize(("data", "count"), [(b"", 0), (b"a", 1), ("€".encode(), 1)])
def test_too_short_a_text(tmp_path, cache_dir, data, count):
    with pytest.raises(InputError, match=rf"data\.path: .*text.txt has {count} characters"):
        open_corpus([write(tmp_path, data)], cache_dir=cache_dir)
    assert not list((cache_dir / "corpus").iterdir())


def test_two_characters_are_enough(tmp_path, cache_dir):
    assert text_of(open_corpus([write(tmp_path, b"aa")], cache_dir=cache_dir)) == "aa"


def test_a_file_that_cannot_be_read(tmp_path, cache_dir):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"data\.path=.*loop: cannot be read"):
        open_corpus([tmp_path / "loop"], cache_dir=cache_dir)


def test_a_cache_that_cannot_be_written(tmp_path):
    file = write(tmp_path, b"hello")
    with pytest.raises(InputError, match=r"data\.cache_dir: cannot write"):
        open_corpus([file], cache_dir=file)


@pytest.mark.parametrize("bad", [{"unit": "word"}, {"max_bytes": 1}, {"max_bytes": 0}], ids=str)
def test_bad_settings_are_named(tmp_path, bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        open_corpus([write(tmp_path, b"hello")], **bad)


def test_stdlib_files():
    files = stdlib_files()
    root = Path(sysconfig.get_paths()["stdlib"])
    names = [f.relative_to(root).as_posix() for f in files]
    assert names == sorted(names) and len(names) > 100
    assert {"abc.py", "argparse.py", "json/__init__.py"} <= set(names)
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"test", "tests", "site-packages", "dist-packages", "idle_test"}
    assert all(name.endswith(".py") for name in names)


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.999, 1e-9, 1.0])
@pytest.mark.parametrize("size", [2, 3, 100])
def test_split_is_contiguous(tmp_path, cache_dir, fraction, size):
    text = "".join(chr(0x4E00 + i) for i in range(size))
    file = write(tmp_path, text.encode())
    data = CharDataModule(
        str(file), train_fraction=fraction, batch_size=3, seq_len=7, cache_dir=cache_dir
    )
    train = data.stream.tokens.tolist()
    assert data.corpus.charset.decode(train) == text[: len(train)]
    if fraction == 1:
        assert len(train) == size and len(data.validation) == 0
        return
    assert len(train) == max(1, min(size - 1, int(fraction * size)))
    targets = [w.targets[w.targets >= 0].tolist() for w in data.validation]
    validates = sorted(i for part in targets for i in part)  # by character, here by place
    assert data.corpus.charset.decode(validates) == text[len(train) :]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_bad_fractions_are_named(fraction):
    with pytest.raises(InputError, match=r"^train_fraction="):
        CharDataModule(train_fraction=fraction)
