"""CharDataModule: the training, validation and test parts, and their alphabet."""

import os

import pytest
import torch

from charrnn import Charset, InputError
from charrnn.data.datamodule import CharDataModule


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a data module of a text, or of a text for each setting."""

    def made(text, settings=None, **texts):
        texts = {"path": text, **texts}
        for key, content in texts.items():
            (tmp_path / f"{key}.txt").write_bytes(content.encode("utf-8"))
        paths = {key: str(tmp_path / f"{key}.txt") for key in texts}
        sizes = {"batch_size": 3, "seq_len": 7, "cache_dir": str(tmp_path / "cache")}
        return CharDataModule(**paths, **sizes | (settings or {}))

    return made


def distinct(size):
    """A text of characters that all differ, sorted by code point."""
    return "".join(chr(0x4E00 + i) for i in range(size))


def targets(data, windows):
    """The characters that are targets of an evaluation, sorted."""
    found = [w.targets[w.targets >= 0].tolist() for w in windows]
    return data.corpus.charset.decode(sorted(i for part in found for i in part))


def trains(data):
    """The training characters."""
    return data.corpus.charset.decode(data.stream.tokens.tolist())


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.999, 1e-9, 1.0])
@pytest.mark.parametrize("size", [2, 3, 100])
def test_split_is_contiguous(make, fraction, size):
    text = distinct(size)
    data = make(text, {"train_fraction": fraction})
    train = trains(data)
    assert text.startswith(train) and len(data.test) == 0
    if fraction == 1:
        assert len(train) == size and len(data.validation) == 0
        return
    assert len(train) == max(1, min(size - 1, int(fraction * size)))
    assert targets(data, data.validation) == text[len(train) :]


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"valid_size": 50, "test_size": 50}, (900, 50, 50)),  # as of text8 and enwik8
        ({"valid_size": 0.05, "test_size": 0.05}, (900, 50, 50)),
        ({"test_size": 0.05}, (900, 50, 50)),
        ({"test_size": 30}, (900, 70, 30)),
        ({"valid_size": 1}, (999, 1, 0)),
        ({"valid_size": 0, "test_size": 999}, (1, 0, 999)),
        ({"train_fraction": 0.6, "test_size": 0.3}, (600, 100, 300)),
        ({"train_fraction": 1.0, "test_size": 0.3}, (700, 0, 300)),
        ({"train_fraction": 0.9, "test_size": 0.3}, (699, 1, 300)),
    ],
    ids=str,
)
def test_splits_by_size_and_share(make, settings, sizes):
    text = distinct(1000)
    data = make(text, settings)
    parts = trains(data), targets(data, data.validation), targets(data, data.test)
    assert "".join(parts) == text and tuple(map(len, parts)) == sizes
    assert data.val_dataloader() is data.validation and data.test_dataloader() is data.test


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_bad_fractions_are_named(fraction):
    with pytest.raises(InputError, match=r"^train_fraction="):
        CharDataModule(train_fraction=fraction)


def test_separate_texts_for_validation_and_test(make):
    data = make("abcabcabc", valid_path="abcdbz", test_path="ccb")
    assert trains(data) == "abcabcabc" and set(data.corpus.charset.alphabet) == set("abc")
    assert targets(data, data.validation) == "\ufffd\ufffdbbc" and targets(data, data.test) == "bc"
    unknown = {key: corpus.unknown for key, corpus in data.corpora.items()}
    assert unknown == {"data.path": 0, "data.valid_path": 2, "data.test_path": 0}
    data = make(distinct(100), {"test_size": 10}, valid_path="ab")
    assert trains(data) == distinct(100)[:90] and targets(data, data.test) == distinct(100)[90:]


def test_a_missing_text_is_named(make):
    with pytest.raises(InputError, match=r"^data\.valid_path=nowhere: no such file"):
        make("abc", {"valid_path": "nowhere"})


def test_the_alphabet_of_a_file(make, tmp_path):
    letters = tmp_path / "letters"
    letters.write_text("cba\nÄ", "utf-8")
    data = make("abcde", {"charset": str(letters), "lowercase": True})
    assert data.corpus.charset == Charset("\nabcä", lowercase=True) and data.corpus.unknown == 2
    data = make("abcde", {"charset": str(letters), "unit": "byte"})
    assert data.corpus.charset == Charset.from_text("cba\nÄ", "byte")


def test_a_given_alphabet_excludes_min_count(make, tmp_path):
    with pytest.raises(InputError, match=r"^min_count=2 must be 1 with data\.charset"):
        make("abc", {"charset": "letters", "min_count": 2})
    with pytest.raises(InputError, match=r"^data\.charset=nowhere: no such file"):
        make("abc", {"charset": "nowhere"})


def test_special_files_are_not_an_alphabet(make, tmp_path):
    """They are rejected before they are opened."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "/dev/zero"):
        with pytest.raises(InputError, match=r"^data\.charset=.* is no regular file"):
            make("abc", {"charset": str(tmp_path / name)})


@pytest.mark.parametrize("name", ["some.ckpt", "some.safetensors", "run", "archive"])
def test_a_checkpoint_is_not_a_text_file(make, tmp_path, name):
    """charset= takes a text or a Charset; the command line reads that of a checkpoint."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({}, tmp_path / "archive")
    with pytest.raises(
        InputError, match=r"^data\.charset=.*charrnn\.checkpoint\.read_charset"
    ) as error:
        make("abc", {"charset": str(tmp_path / name)})
    assert "\n" not in str(error.value)
