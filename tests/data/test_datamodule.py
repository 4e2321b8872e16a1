"""CharDataModule: which characters train, validate and test, and in whose alphabet."""

import os

import pytest
import torch
from helpers import TEXT, TINY

from charrnn import Charset, InputError, load
from charrnn.data.datamodule import CharDataModule
from charrnn.data.split import split_sizes
from charrnn.evaluation.static import evaluate


@pytest.fixture
def make(tmp_path):
    """Makes one of a text, or of a text for each key."""

    def made(text, settings=None, **texts):
        texts = {"path": text, **texts}
        for key, content in texts.items():
            (tmp_path / f"{key}.txt").write_bytes(content.encode("utf-8"))
        paths = {key: str(tmp_path / f"{key}.txt") for key in texts}
        sizes = {"batch_size": 3, "seq_len": 7, "cache_dir": str(tmp_path / "cache")}
        return CharDataModule(**paths, **sizes | (settings or {}))

    return made


def places(size):
    """A text in which every character tells its position."""
    return "".join(chr(0x4E00 + i) for i in range(size))


def targets(data, windows):
    """The characters that are targets of an evaluation, sorted; with places, in their order."""
    found = [w.targets[w.targets >= 0].tolist() for w in windows]
    return data.corpus.charset.decode(sorted(i for part in found for i in part))


def trains(data):
    return data.corpus.charset.decode(data.stream.tokens.tolist())


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.999, 1e-9, 1.0])
@pytest.mark.parametrize("size", [2, 3, 100])
def test_split_is_contiguous(make, fraction, size):
    text = places(size)
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
    text = places(1000)
    data = make(text, settings)
    parts = trains(data), targets(data, data.validation), targets(data, data.test)
    assert "".join(parts) == text and tuple(map(len, parts)) == sizes
    assert data.val_dataloader() is data.validation and data.test_dataloader() is data.test


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ((1000, None, None, 0), (900, 100, 0)),
        ((50_000_000, None, None, 0), (45_000_000, 5_000_000, 0)),
        ((10**11, None, None, 0), (10**11 - 5_000_000, 5_000_000, 0)),
        ((1000, None, None, 0.05), (900, 50, 50)),
        ((10**11, None, None, 10**9), (99 * 10**9 - 5_000_000, 5_000_000, 10**9)),
        ((10**11, 0.9, None, 0), (9 * 10**10, 10**10, 0)),  # where somebody says so
        ((10**11, None, 0.1, 0), (9 * 10**10, 10**10, 0)),
    ],
)
def test_what_validates_by_default_has_a_bound(settings, sizes):
    assert split_sizes(*settings) == sizes


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_bad_fractions_are_named(fraction):
    with pytest.raises(InputError, match=r"^train_fraction="):
        CharDataModule(train_fraction=fraction)


@pytest.mark.parametrize(
    "bad",
    [{"valid_size": -1}, {"valid_size": 1.0}, {"valid_size": 100}, {"test_size": float("nan")},
     {"test_size": 100}, {"test_size": 99}, {"test_size": 60, "valid_size": 40}],
    ids=str,
)  # fmt: skip
def test_bad_sizes_are_named(bad):
    name = list(bad)[-1]
    with pytest.raises(InputError, match=f"^{name}={bad[name]} must be"):
        split_sizes(100, 0.9, bad.get("valid_size"), bad.get("test_size", 0))


def test_texts_of_their_own(make):
    data = make("abcabcabc", valid_path="abcdbz", test_path="ccb")
    assert trains(data) == "abcabcabc" and set(data.corpus.charset.alphabet) == set("abc")
    assert targets(data, data.validation) == "\ufffd\ufffdbbc" and targets(data, data.test) == "bc"
    unknown = {key: corpus.unknown for key, corpus in data.corpora.items()}
    assert unknown == {"data.path": 0, "data.valid_path": 2, "data.test_path": 0}
    data = make(places(100), {"test_size": 10}, valid_path="ab")
    assert trains(data) == places(100)[:90] and targets(data, data.test) == places(100)[90:]


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


def test_a_given_alphabet_leaves_nothing_to_count(make, tmp_path):
    with pytest.raises(InputError, match=r"^min_count=2 must be 1 with data\.charset"):
        make("abc", {"charset": "letters", "min_count": 2})
    with pytest.raises(InputError, match=r"^data\.charset=nowhere: no such file"):
        make("abc", {"charset": "nowhere"})


def test_what_is_no_alphabet_is_named(make, tmp_path):
    """And neither waited for nor read as a text."""
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


def test_a_run_with_texts_of_its_own(command, tmp_path):
    """From training to scoring, in lower case and one normal form."""
    for name, text in (("train", TEXT), ("valid", "An \u00e9t\u00e9\u2603. " * 50)):
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    (tmp_path / "letters").write_text(TEXT + "e\u0301", "utf-8")
    run = tmp_path / "run"
    result = command(
        "train.py", "data.path=train.txt", "data.valid_path=valid.txt", "data.test_size=0.05",
        "data.normalize=nfd", "data.lowercase=true", "data.charset=letters", *TINY,
        f"hydra.run.dir={run}", "trainer.max_steps=3", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "data.valid_path: 50 of 550 characters are outside the alphabet" in result.out
    assert "data.path:" not in result.out
    model = load(run)
    assert model.charset.normalize == "nfd" and model.charset.lowercase
    assert len(model.score("\u00c9T\u00c9")) == 4  # of five characters, after the first
    assert model.generate("\u00c9", length=0) == "e\u0301"
    data = CharDataModule(
        str(tmp_path / "train.txt"), normalize="nfd", lowercase=True, test_size=0.05,
        charset=model.charset, batch_size=3, seq_len=7,
    )  # fmt: skip
    assert targets(data, data.test) == "".join(sorted(TEXT.lower()[-int(0.05 * len(TEXT)) :]))
    nats = evaluate(load(run / "checkpoints" / "best.ckpt").model, data.test).nats
    assert f"test             {nats:.4f} nats" in result.out
    (tmp_path / "valid.txt").write_text("other text", "utf-8")
    result = command("train.py", f"resume={run}", "trainer.max_steps=5", cwd=tmp_path)
    assert result.code == 2 and "the corpus has changed" in result.err
    assert "data.valid_path=FILE" in result.err
