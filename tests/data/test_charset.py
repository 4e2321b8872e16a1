"""Charset: any text round-trips, unknown characters have index 0, units char and byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import Charset, InputError
from charrnn.data.charset import UNKNOWN

# Hypothesis leaves lone surrogates out of text() unless they are named.
ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_any_text_round_trips(text):
    charset = Charset.from_text(text)
    assert charset.decode(charset.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["", "\0", "\r\n\n\r", "\ud800", "\ud83d\ude00", "\U0010ffff", "é"]
)
def test_odd_text_round_trips(text):
    charset = Charset.from_text(text)
    assert len(charset.encode(text)) == len(text)
    assert charset.decode(charset.encode(text)) == text


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_round_trips_as_bytes(text):
    charset = Charset.from_text(text, "byte")
    indices = charset.encode(text)
    assert len(indices) == len(text.encode())
    assert charset.decode(indices) == text
    assert np.array_equal(charset.encode(text.encode()), indices)


@given(st.binary())
def test_any_bytes_have_their_own_indices(data):
    charset = Charset.from_text(data, "byte")
    back = bytes(ord(charset.alphabet[i - 1]) for i in charset.encode(data))
    assert back == data
    assert charset.decode(charset.encode(data)) == data.decode("utf-8", "replace")


@given(ANY, ANY)
def test_unknown_characters_have_index_0(known, text):
    charset = Charset.from_text(known)
    expected = [c if c in known else UNKNOWN for c in text]
    assert charset.decode(charset.encode(text)) == "".join(expected)
    foreign = {c for c in text if c not in known} - {UNKNOWN}
    assert charset.unknown_characters(text) == "".join(
        c for c in dict.fromkeys(text) if c in foreign
    )


@given(ANY)
def test_alphabet_is_sorted_by_code_point(text):
    charset = Charset(text)
    assert list(charset.alphabet) == sorted(set(text) - {UNKNOWN}, key=ord)
    assert len(charset) == len(charset.alphabet) + 1
    assert list(charset.encode(charset.alphabet)) == list(range(1, len(charset)))
    assert list(charset.encode(UNKNOWN)) == [0]


@given(st.lists(st.integers(0, 256)))
def test_byte_decoder_equals_decode(indices):
    charset = Charset(map(chr, range(256)), "byte")
    decoder = charset.decoder()
    text = "".join(decoder(i) for i in indices) + decoder(None)
    # Index 0 is not a byte, and ends an incomplete character.
    parts = [[]]
    for i in indices:
        parts.append([]) if i == 0 else parts[-1].append(i - 1)
    assert text == UNKNOWN.join(bytes(p).decode("utf-8", "replace") for p in parts)
    assert text == charset.decode(indices)


def test_decoder_buffers_incomplete_characters():
    charset = Charset.from_text("€", "byte")
    decoder = charset.decoder()
    assert [decoder(int(i)) for i in charset.encode("€")] == ["", "", "€"]
    assert decoder(None) == ""
    assert decoder(int(charset.encode("€")[0])) == ""
    assert decoder(None) == UNKNOWN


@pytest.mark.parametrize("unit", ["char", "byte"])
def test_state_makes_an_equal_charset(unit):
    charset = Charset.from_text("häß\n\0", unit)
    copy = Charset(**charset.state_dict())
    assert copy == charset and hash(copy) == hash(charset)
    assert copy != Charset.from_text("häß\n", unit)
    assert Charset("ab") != Charset("ab", "byte")


@pytest.mark.parametrize(
    ("characters", "dtype"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65536, "uint32")]
)
def test_smallest_type(characters, dtype):
    charset = Charset(map(chr, range(characters)))  # U+FFFD is not among the first 65,533
    charset = Charset(charset.alphabet + ("\U00010000" if characters > 0xFFFD else ""))
    assert len(charset) == characters + 1
    assert charset.encode("x").dtype == dtype
    last = charset.alphabet[-1:]
    assert charset.decode(charset.encode(last)) == last


def test_all_bytes_make_257_indices():
    assert Charset.from_text(bytes(range(256)), "byte").encode(b"\xff").tolist() == [256]


def test_bad_settings():
    with pytest.raises(InputError, match="unit=word must be char or byte"):
        Charset("a", "word")
    with pytest.raises(InputError, match="bytes 0 to 255"):
        Charset("€", "byte")
