"""The cache of encoded texts: damaged entries, concurrent processes, and killed ones."""

import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from charrnn import InputError
from charrnn.data import cache, corpus, files
from charrnn.data.corpus import open_corpus


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def encodings(monkeypatch):
    """Calls of encode; a cached text makes none."""
    calls, encode = [], corpus.encode
    monkeypatch.setattr(corpus, "encode", lambda *a: calls.append(a) or encode(*a))
    return calls


def write(tmp_path, data, name="text.txt"):
    file = tmp_path / name
    file.write_bytes(data)
    return file


def kept(cache_dir):
    """The entries of a cache, and leftovers of incomplete ones."""
    return [f for f in (cache_dir / "corpus").iterdir() if f.suffix != ".lock"]


def text_of(found):
    return found.charset.decode(found.tokens.tolist())


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


def flipped(name, before, after):
    """Overwrite some bytes with as many others."""

    def damage(folder):
        data = (folder / name).read_bytes()
        offset = data.index(before)
        (folder / name).write_bytes(data[:offset] + after + data[offset + len(after) :])

    return damage


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
        broken("meta.json", b'{"size": 11, "dtype": "word", "crc32": 0}'),
        flipped("meta.json", b"uint8", b"uint9"),
        flipped("meta.json", b" ehlo", b" eilo"),
        flipped("meta.json", b'"unit": "char"', b'"unit": "byte"'),
        flipped("tokens.bin", b"", b"\1"),
    ],
    ids=["cut", "empty", "no-tokens", "no-meta", "empty-meta", "half-meta", "list-meta",
         "binary-meta", "no-checksum", "no-such-type", "other-type", "other-characters",
         "other-unit", "flipped"],
)  # fmt: skip
def test_a_damaged_entry_is_encoded_again(tmp_path, cache_dir, encodings, damage):
    file = write(tmp_path, b"hello hello")
    open_corpus([file], cache_dir=cache_dir)
    (folder,) = kept(cache_dir)
    damage(folder)
    assert text_of(open_corpus([file], cache_dir=cache_dir)) == "hello hello"
    assert len(encodings) == 2
    assert kept(cache_dir) == [folder]
    assert json.loads((folder / "meta.json").read_text())["size"] == 11


def test_an_exception_while_encoding_leaves_nothing(tmp_path, cache_dir, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.zlib, "crc32", fail)
    with pytest.raises(KeyboardInterrupt):
        open_corpus([write(tmp_path, b"hello")], cache_dir=cache_dir)
    assert not kept(cache_dir)


def test_an_open_text_survives_removal_of_the_cache(tmp_path, cache_dir):
    found = open_corpus([write(tmp_path, b"hello")], cache_dir=cache_dir)
    shutil.rmtree(cache_dir)
    assert text_of(found) == "hello"


def test_a_cache_that_cannot_be_written(tmp_path):
    file = write(tmp_path, b"hello")
    with pytest.raises(InputError, match=r"data\.cache_dir: cannot write"):
        open_corpus([file], cache_dir=file)


# Faults, in processes of their own.

TEXT = "Ein Text, für den alle Stücke klein sind.\n" * 50


class Fork:
    """A process that calls a function; its exit code is 0 if the function returns."""

    def __init__(self, function):
        self.pid = os.fork()
        if not self.pid:
            try:
                function()
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            sys.stderr.flush()
            os._exit(0)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def call_instead(owner, name, function, number=1):
    """Patch a function to call another one before its call with the given number."""
    real, calls = getattr(owner, name), iter(range(1, 1 << 30))

    def instead(*args, **kwargs):
        if next(calls) == number:
            function()
        return real(*args, **kwargs)

    setattr(owner, name, instead)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 64)


MOMENTS = {
    "hashing": (files.Path, "stat", 3),
    "alphabet": (corpus, "find_alphabet", 1),
    "inside-the-alphabet": (corpus, "to_points", 9),
    "before-the-folder": (cache.Path, "mkdir", 2),
    "encoding": (cache.zlib, "crc32", 9),
    "before-meta": (cache.Path, "write_text", 1),
    "before-the-old-one-is-removed": (cache.shutil, "rmtree", 2),
    "before-the-rename": (cache.Path, "rename", 1),
    "after-the-rename": (cache, "read_entry", 3),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("torn", [False, True], ids=["new", "torn"])
def test_killed_at_any_moment(tmp_path, cache_dir, small_blocks, moment, torn):
    file = write(tmp_path, TEXT.encode())
    if torn:
        open_corpus([file], cache_dir=cache_dir)
        os.truncate(kept(cache_dir)[0] / "tokens.bin", 5)

    def run():
        owner, name, number = MOMENTS[moment]
        call_instead(owner, name, die, number)
        open_corpus([file], cache_dir=cache_dir)

    assert Fork(run).wait() == -signal.SIGKILL
    assert text_of(open_corpus([file], cache_dir=cache_dir)) == TEXT
    assert len(kept(cache_dir)) == 1


def test_concurrent_processes_encode_once(tmp_path, cache_dir, small_blocks):
    file, calls = write(tmp_path, TEXT.encode()), tmp_path / "calls"

    def run():
        def noted():
            with open(calls, "a") as f:
                f.write("encoded\n")
            time.sleep(0.3)

        call_instead(corpus, "encode", noted)
        assert text_of(open_corpus([file], cache_dir=cache_dir)) == TEXT

    forks = [Fork(run) for _ in range(4)]
    assert [fork.wait() for fork in forks] == [0] * 4
    assert calls.read_text() == "encoded\n" and len(kept(cache_dir)) == 1


def test_a_lock_of_a_killed_process_is_free(tmp_path, cache_dir, small_blocks, capfd):
    file, begun = write(tmp_path, TEXT.encode()), tmp_path / "begun"

    def never_ends():
        begun.touch()
        time.sleep(100)

    def first():
        call_instead(cache.zlib, "crc32", never_ends, 9)
        open_corpus([file], cache_dir=cache_dir)

    def second():
        assert text_of(open_corpus([file], cache_dir=cache_dir)) == TEXT

    killed = Fork(first)
    try:
        while not begun.exists():
            time.sleep(0.01)
        waiting, err = Fork(second), ""
        while "waiting for another process" not in err:
            err += capfd.readouterr().err
            time.sleep(0.01)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and waiting.wait() == 0
    assert len(kept(cache_dir)) == 1


def test_a_full_disk(tmp_path, cache_dir, small_blocks, capfd):
    file = write(tmp_path, TEXT.encode())

    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        open_corpus([file], cache_dir=cache_dir)

    assert Fork(run).wait() == 1
    assert "data.cache_dir: cannot write" in capfd.readouterr().err
    assert kept(cache_dir) == []


def test_temporary_files_elsewhere(tmp_path, cache_dir, monkeypatch):
    """A rename is atomic on one file system only, so the cache does not use TMPDIR."""
    file = write(tmp_path, TEXT.encode())
    elsewhere = Path("/dev/shm") / tmp_path.name
    elsewhere.mkdir()
    try:
        monkeypatch.setenv("TMPDIR", str(elsewhere))
        monkeypatch.setattr("tempfile.tempdir", None)
        assert text_of(open_corpus([file], cache_dir=cache_dir)) == TEXT
        assert not list(elsewhere.iterdir())
    finally:
        shutil.rmtree(elsewhere)


def test_a_text_that_changes_while_it_is_read(tmp_path, cache_dir):
    file = write(tmp_path, b"hello hello")
    real = corpus.encode

    def growing(*args):
        file.write_bytes(b"hello hello hello")
        real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "encode", growing)
        with pytest.raises(InputError, match=r"text\.txt: changed while it was read"):
            open_corpus([file], cache_dir=cache_dir)
    assert not kept(cache_dir)
    assert text_of(open_corpus([file], cache_dir=cache_dir)) == "hello hello hello"


def test_a_cached_text_needs_no_lock(tmp_path, cache_dir, monkeypatch):
    file = write(tmp_path, b"hello hello")
    open_corpus([file], cache_dir=cache_dir)
    monkeypatch.setattr(cache, "lock_entry", None)
    assert text_of(open_corpus([file], cache_dir=cache_dir)) == "hello hello"


def test_list_and_clear(tmp_path, cache_dir):
    root = cache.cache_folder(cache_dir)
    empty = [f"0 texts, 0.0 MB in {cache_dir}/corpus"]
    assert cache.list_cache(root) == empty
    for name in ("one", "two"):
        found = open_corpus([write(tmp_path, f"{name} text".encode(), name)], cache_dir=cache_dir)
    (kept(cache_dir)[0] / "meta.json").write_text("{")
    lines = cache.list_cache(root)
    assert len(lines) == 3 and lines[-1].startswith("2 texts, ")
    assert sum("8 characters of" in line for line in lines) == 1
    assert sum("incomplete" in line for line in lines) == 1
    other = cache_dir / "downloads"
    other.mkdir()
    with cache.lock_entry(kept(cache_dir)[0]):  # as while another process writes it
        cache.clear_cache(root)
        assert cache.list_cache(root)[-1].startswith("1 texts, ")
    cache.clear_cache(root)
    assert cache.list_cache(root) == empty
    assert text_of(found) == "two text" and other.exists()
