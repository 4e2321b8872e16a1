"""Checkpoints: plain, atomic, of charrnn, and a model's weights by its characters."""

import os
import pickle
import stat
import warnings

import pytest
import torch
from helpers import load
from small_models import saved_model as make

import charrnn
from charrnn import GRUEncode, GRUResize, InputError
from charrnn.checkpoint import files as archive
from charrnn.checkpoint.format import FORMAT, build, find, initialize, read
from charrnn.checkpoint.serialization import save

H, L = 5, 3
KINDS = (GRUEncode, GRUResize)
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)


def names(folder):
    return sorted(f.name for f in folder.iterdir())


# What a run writes


def test_a_run_s_checkpoint_is_plain(trained):
    file = trained / "checkpoints" / "last.ckpt"
    assert torch.serialization.get_unsafe_globals_in_checkpoint(file) == []

    def plain(value):
        if isinstance(value, dict):
            return all(plain(k) and plain(v) for k, v in value.items())
        if isinstance(value, list | tuple):
            return type(value) in (list, tuple) and all(map(plain, value))
        return value is None or type(value) in (bool, int, float, str, torch.Tensor)

    saved = load(file)
    assert plain({k: v for k, v in saved.items() if k != "loops"})
    ours = saved["charrnn"]
    kept = {"format", "version", "settings", "charset", "corpus", "carry", "position", "random",
            "scheduler", "windows", "rounds", "validations"}  # fmt: skip
    assert kept <= ours.keys() and ours["carry"].shape == (2, 3, 8)


def test_a_loaded_model_gives_the_saved_one_s_logits(trained, tmp_path, monkeypatch):
    saved = load(trained / "checkpoints" / "last.ckpt")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model = charrnn.load(trained)
    assert torch.get_rng_state().equal(before)
    assert not model.model.training
    expected = GRUEncode(len(model.charset), hidden_size=8)
    expected.load_state_dict({k.removeprefix("model."): v for k, v in saved["state_dict"].items()})
    inputs = torch.randint(0, len(model.charset), (7, 3))
    state = torch.randn(2, 3, 8)
    for a, b in zip(model.model(inputs, state), expected(inputs, state)):
        assert a.equal(b)
    # A file anywhere, by itself, is enough.
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((trained / "checkpoints" / "last.ckpt").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert charrnn.load("alone.ckpt").generate(seed=1) == model.generate(seed=1)


@kinds
@pytest.mark.parametrize("reset", ["after", "before"])
def test_write_read_build(tmp_path, kind, reset):
    model, charset, saved = make(kind, "abc", reset=reset, gate="hard_sigmoid", dropout=0.5)
    save(saved, tmp_path / "a" / "model.ckpt")
    found, found_charset = build(read(tmp_path / "a" / "model.ckpt"))
    assert type(found) is kind and found_charset == charset and not found.training
    inputs, state = torch.randint(0, 4, (7, 3)), torch.randn(L, 3, H)
    for a, b in zip(found(inputs, state), model(inputs, state)):
        assert a.equal(b)


def test_build_makes_models_only():
    _, _, saved = make(GRUEncode, "abc")
    for target in (
        "os.system",
        "charrnn.models.uniform_fan_in",
        "charrnn.models.math",
        "GRUEncode",
    ):
        saved["charrnn"]["settings"]["model"]["_target_"] = target
        with pytest.raises(InputError, match="is no model"):
            build(saved)


def test_find(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="run: no checkpoint there"):
        find(run)
    file = run / "checkpoints" / "last.ckpt"
    file.touch()
    assert find(run) == find(str(file)) == file
    with pytest.raises(InputError, match=r"missing\.ckpt: no checkpoint there"):
        find(run / "missing.ckpt")


# Files that will not do


class Malicious:
    """Would make a folder, were it unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def damage(data, kind):
    return {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "cut-by-one": data[:-1],
        "text": b"not a checkpoint\n",
        "bytes": bytes(range(256)) * 40,
        "zip": b"PK\x05\x06" + bytes(18),  # an empty archive
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "cut", "cut-by-one", "text", "bytes", "zip"])
def test_torn_files(tmp_path, kind):
    file = tmp_path / "last.ckpt"
    save(make(GRUEncode, "abc")[2], file)
    file.write_bytes(damage(file.read_bytes(), kind))
    with pytest.raises(InputError, match=r"last\.ckpt: it is (torn|damaged).*; give another"):
        read(file)


@pytest.mark.parametrize(
    "foreign",
    [{}, [], torch.zeros(3), {"state_dict": {}}, {"charrnn": 3}, {"charrnn": {"windows": 1}}],
    ids=["empty", "list", "tensor", "lightning", "number", "no-format"],
)
def test_checkpoints_of_other_programs(tmp_path, foreign):
    torch.save(foreign, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt: a checkpoint of another program"):
        read(tmp_path / "other.ckpt")


def test_another_format(tmp_path):
    saved = {"charrnn": {"format": FORMAT + 1, "version": "9.9"}}
    torch.save(saved, tmp_path / "new.ckpt")
    with pytest.raises(InputError, match=rf"charrnn 9\.9 in format {FORMAT + 1}.* reads format"):
        read(tmp_path / "new.ckpt")


@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("inside", [True, False], ids=["among_ours", "alone"])
def test_a_malicious_file_runs_nothing(tmp_path, how, inside):
    made = tmp_path / "made"
    evil = Malicious(made)
    saved = {"charrnn": {"format": FORMAT, "settings": evil}} if inside else evil
    file = tmp_path / "evil.ckpt"
    if how == "torch":
        torch.save(saved, file)
    else:
        file.write_bytes(pickle.dumps(saved))
    for reader in (read, charrnn.load, lambda f: initialize(*make(GRUEncode, "abc")[:2], f)):
        with pytest.raises(InputError, match=r"evil\.ckpt"):
            reader(file)
    assert not made.exists()
    with warnings.catch_warnings():  # it would have, read without care
        warnings.simplefilter("ignore")
        torch.load(file, weights_only=False) if how == "torch" else pickle.loads(file.read_bytes())
    assert made.exists()


# Writing


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
def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch, error, where):
    file = tmp_path / "last.ckpt"
    save({"charrnn": {"format": FORMAT}, "old": torch.arange(1000)}, file)
    old = file.read_bytes()
    new = {"tensor": torch.zeros(1000)}
    if where == "saving":
        new["last"] = Unwritable(error())
    else:

        def fail(number):
            raise error()

        monkeypatch.setattr(archive.os, "fsync", fail)
    with pytest.raises(error):
        save(new, file)
    assert file.read_bytes() == old and names(tmp_path) == ["last.ckpt"]


def test_a_write_replaces_the_file_at_once(tmp_path, monkeypatch):
    """The old one stands under its name until the whole of the new one is on disk."""
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

    monkeypatch.setattr(archive.os, "replace", watch)
    monkeypatch.setattr(archive.os, "fsync", watch_disk)
    save(least | {"number": 2}, file)
    assert seen == ["file", (1, 2), "folder"]
    assert read(file)["number"] == 2 and names(tmp_path) == ["last.ckpt"]


# Weights by character


@kinds
@pytest.mark.parametrize("here", ["abcdef", "bd", "fedcbaxyz", "\0aAbé€", "uvw"])
def test_weights_go_by_their_characters(tmp_path, kind, here):
    there = "abcdef"
    theirs, their_charset, saved = make(kind, there)
    save(saved, tmp_path / "old.ckpt")
    ours, our_charset, _ = make(kind, here, seed=1)
    untouched = {k: v.clone() for k, v in ours.state_dict().items()}
    common = set(here) & set(there)
    assert initialize(ours, our_charset, tmp_path / "old.ckpt") == len(common)
    by_character = {"decoder.weight": 0, "decoder.bias": 0}
    by_character |= {"embed.weight": 0} if kind is GRUEncode else {"gru.weight_ih_l0": 1}
    for name, value in ours.state_dict().items():
        old = theirs.state_dict()[name]
        if name not in by_character:
            assert value.equal(old), name
            continue
        axis = by_character[name]
        for character in ["\ufffd", *our_charset.alphabet]:
            (i,), (j,) = our_charset.encode(character), their_charset.encode(character)
            known = character in common or character == "\ufffd"
            expected = old.select(axis, int(j)) if known else untouched[name].select(axis, int(i))
            assert value.select(axis, int(i)).equal(expected), (name, character)


@kinds
def test_a_known_text_keeps_its_states(tmp_path, kind):
    """With its characters at other indices, a model hears the same."""
    theirs, their_charset, saved = make(kind, "abcdef")
    save(saved, tmp_path / "old.ckpt")
    ours, our_charset, _ = make(kind, "AabcdefXYZ", seed=1)
    initialize(ours, our_charset, tmp_path / "old.ckpt")
    states = []
    for model, charset in ((theirs, their_charset), (ours, our_charset)):
        indices = torch.from_numpy(charset.encode("fadebac").astype("int64"))[:, None]
        states.append(model(indices, model.initial_state(1))[1])
    torch.testing.assert_close(*states)


@kinds
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"hidden_size": 6}, r"is \(.*\) there and \(.*\) here; the sizes of the model"),
        ({"num_layers": 2}, "a model of another kind or depth"),
        ({"num_layers": 4}, "a model of another kind or depth"),
        ({"unit": "byte"}, r"of data\.unit=char, here byte"),
    ],
    ids=str,
)
def test_a_model_of_other_sizes(tmp_path, kind, other, words):
    save(make(kind, "abcdef")[2], tmp_path / "old.ckpt")
    model, charset, _ = make(kind, "abcdef", seed=1, **other)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError, match=rf"init_from=.*old\.ckpt: .*{words}"):
        initialize(model, charset, tmp_path / "old.ckpt")
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


@kinds
def test_a_model_of_another_kind(tmp_path, kind):
    (other,) = set(KINDS) - {kind}
    save(make(other, "abcdef")[2], tmp_path / "old.ckpt")
    with pytest.raises(InputError, match="another kind or depth"):
        initialize(*make(kind, "abcdef")[:2], tmp_path / "old.ckpt")
