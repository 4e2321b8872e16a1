"""Initializing from another checkpoint: weights matched by character, and what does not fit."""

import pytest
import torch
from small_models import saved_model as make

from charrnn import Charset, GRUEncode, GRUResize, InputError
from charrnn.checkpoint.initialize import initialize_model, read_charset
from charrnn.checkpoint.serialization import save

KINDS = (GRUEncode, GRUResize)
kinds = pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)


@kinds
@pytest.mark.parametrize("here", ["abcdef", "bd", "fedcbaxyz", "\0aAbé€", "uvw"])
def test_weights_are_matched_by_character(tmp_path, kind, here):
    there = "abcdef"
    theirs, their_charset, saved = make(kind, there)
    save(saved, tmp_path / "old.ckpt")
    ours, our_charset, _ = make(kind, here, seed=1)
    untouched = {k: v.clone() for k, v in ours.state_dict().items()}
    common = set(here) & set(there)
    assert initialize_model(ours, our_charset, tmp_path / "old.ckpt") == len(common)
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
def test_states_along_a_known_text_stay(tmp_path, kind):
    """The states along a text do not depend on the indices of its characters."""
    theirs, their_charset, saved = make(kind, "abcdef")
    save(saved, tmp_path / "old.ckpt")
    ours, our_charset, _ = make(kind, "AabcdefXYZ", seed=1)
    initialize_model(ours, our_charset, tmp_path / "old.ckpt")
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
def test_a_mismatch_is_an_error_and_changes_nothing(tmp_path, kind, other, words):
    save(make(kind, "abcdef")[2], tmp_path / "old.ckpt")
    model, charset, _ = make(kind, "abcdef", seed=1, **other)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError, match=rf"init_from=.*old\.ckpt: .*{words}"):
        initialize_model(model, charset, tmp_path / "old.ckpt")
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


@kinds
def test_another_kind_of_model_is_an_error(tmp_path, kind):
    (other,) = set(KINDS) - {kind}
    save(make(other, "abcdef")[2], tmp_path / "old.ckpt")
    with pytest.raises(InputError, match="another kind or depth"):
        initialize_model(*make(kind, "abcdef")[:2], tmp_path / "old.ckpt")


@pytest.mark.parametrize("name", ["some.ckpt", "run"])
def test_the_charset_of_a_checkpoint(tmp_path, name):
    """``data.charset=`` requires that both texts are preprocessed in the same way."""
    _, _, saved = make(GRUEncode, "xyz")
    charset = Charset("xyz", normalize="nfc")
    saved["charrnn"]["charset"] = charset.state_dict()
    save(saved, tmp_path / "some.ckpt")
    save(saved, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert read_charset(tmp_path / name, charset.options) == charset
    with pytest.raises(InputError, match=r"read with normalize=nfc, here it is null"):
        read_charset(tmp_path / name, Charset().options)


@pytest.mark.parametrize("name", ["torn.ckpt", "torn.safetensors"])
def test_the_charset_of_a_damaged_checkpoint(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04, truncated")
    with pytest.raises(InputError, match=rf"{name}: it is"):
        read_charset(tmp_path / name, Charset().options)
