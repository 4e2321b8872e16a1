"""Corpus: which characters are read, and that chunks are encoded as the whole is."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn import Charset, InputError
from charrnn.data import files
from charrnn.data.corpus import open_corpus

AS_IT_IS = {"newlines": "keep", "encoding": "utf-8"}
"""Without newline translation, and with no file refused; see test_decode.py for the defaults."""

# One to four bytes a character, a newline of each kind, bytes that are none of UTF-8.
MIXED = "aé€\U0001f600\r\nb\rc\n\0".encode() + b"\xff\xc3" + "żółć".encode()


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def write(tmp_path, data, name="text.txt"):
    file = tmp_path / name
    file.write_bytes(data)
    return file


def text_of(found):
    return found.charset.decode(found.tokens.tolist())


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
def test_chunks_are_encoded_as_the_whole(tmp_path, cache_dir, monkeypatch, unit, chunk):
    """For any block size, also if a block ends inside a character."""
    monkeypatch.setattr(files, "BLOCK", chunk)
    found = open_corpus([write(tmp_path, MIXED)], unit, cache_dir=cache_dir, **AS_IT_IS)
    text = MIXED.decode("utf-8", "replace") if unit == "char" else MIXED
    assert found.charset == Charset.from_text(text, unit)
    expected = found.charset.encode(text)
    assert np.array_equal(found.tokens.numpy(), expected)
    assert found.tokens.numpy().dtype == expected.dtype
    assert found.sha256 == hashlib.sha256(MIXED).hexdigest()


def test_newlines_stay_and_undecodable_bytes_are_unknown(tmp_path, cache_dir):
    file = write(tmp_path, b"a\r\nb\rc\n\xff\xfed\xc3")
    found = open_corpus([file], cache_dir=cache_dir, newlines="keep")
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


def test_max_bytes_is_part_of_the_key(tmp_path, cache_dir):
    """The same bytes end in half a character: cut off by max_bytes, or as in the file."""
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


@pytest.mark.parametrize(("data", "count"), [(b"", 0), (b"a", 1), ("€".encode(), 1)])
def test_too_short_a_text(tmp_path, cache_dir, data, count):
    with pytest.raises(InputError, match=rf"text.txt: has {count} characters"):
        open_corpus([write(tmp_path, data)], cache_dir=cache_dir)


def test_two_characters_are_enough(tmp_path, cache_dir):
    assert text_of(open_corpus([write(tmp_path, b"aa")], cache_dir=cache_dir)) == "aa"


def test_a_file_that_cannot_be_read(tmp_path, cache_dir):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"loop: cannot be read"):
        open_corpus([tmp_path / "loop"], cache_dir=cache_dir)


@pytest.mark.parametrize("bad", [{"unit": "word"}, {"max_bytes": 1}, {"max_bytes": 0}], ids=str)
def test_bad_settings_are_named(tmp_path, bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        open_corpus([write(tmp_path, b"hello")], **bad)


# Bytes as they come: text of any characters, lone surrogates too, in UTF-8, whole or cut or mixed
# with bytes that are none; a byte order mark, newlines of all kinds, NUL, marks, one long line.
ANY = st.text(st.characters(exclude_categories=()))
DATA = st.lists(
    st.one_of(
        ANY.map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=5),
        st.sampled_from([b"\xef\xbb\xbf", b"\r\n", b"\r", b"\0", b"a" * 50, "é".encode() * 40]),
    ),
    max_size=6,
).map(b"".join)


def read(folder, data, block, **settings):
    """Open bytes with a block size; None if they are fewer than two characters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        try:
            file, settings = write(folder, data), AS_IT_IS | settings
            return open_corpus([file], cache_dir=folder / "cache", **settings)
        except InputError as error:
            assert "two or more are needed" in str(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@given(DATA, st.integers(1, 9), st.sampled_from(["char", "byte"]))
@example("\ud83d\ude00 \udfff".encode("utf-8", "surrogatepass"), 2, "char")
def test_any_bytes_with_any_block_size(folder, data, block, unit):
    found = read(folder, data, block, unit=unit)
    text = data.decode("utf-8", "replace") if unit == "char" else data
    if found is None:
        assert len(text) < 2
        return
    assert found.charset == Charset.from_text(text, unit)
    assert np.array_equal(found.tokens.numpy(), found.charset.encode(text))
    assert found.unknown == (text.count("\ufffd") if unit == "char" else 0)


# What joins its neighbors in one form or another: marks, Hangul in pieces, half-width Kana,
# ligatures, a capital sigma, a dotted I.
JOINING = "a\u0301\u0323\u0300e\u1100\u1161\u11a8\uac00\u314f\uff76\uff9e\u3099\u0b47\u0b3e" \
          "\ufb01\u2122\u0130\u03a3\u0345\u212b\u1e9b\ufffd \n中"  # fmt: skip


@given(
    st.one_of(st.text(JOINING), ANY), st.integers(1, 9),
    st.sampled_from([None, "nfc", "nfd", "nfkc", "nfkd"]), st.booleans(),
)  # fmt: skip
@example("\u1100\u1161\u11a8", 3, "nfc", False)
@example("\u0391\u03a3\u0391", 4, None, True)
def test_any_text_normalized(folder, text, block, normalize, lowercase):
    """Normalized in chunks it equals the whole text normalized."""
    reading = {"normalize": normalize, "lowercase": lowercase}
    data = text.encode("utf-8", "surrogatepass")
    found = read(folder, data, block, **reading)
    text = data.decode("utf-8", "replace")
    if found is None:
        assert len(Charset("", **reading).preprocess(text)) < 2
        return
    assert found.charset == Charset.from_text(text, **reading)
    assert np.array_equal(found.tokens.numpy(), found.charset.encode(text))


def test_lower_case_is_context_free():
    charset = Charset.from_text("ΣΑΣ Straße İ", lowercase=True)
    capital, small = "\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c3"
    assert charset.decode(charset.encode(capital)) == small
    assert charset.decode(charset.encode("STRAßE")) == "straße"
    assert charset.unknown_characters("AΣ\n") == "\n"


@given(ANY, st.integers(1, 4), st.integers(1, 9))
def test_rare_characters_are_unknown(folder, text, min_count, block):
    text = text.encode("utf-8", "replace").decode()
    found = read(folder, text.encode(), block, min_count=min_count)
    if found is None:
        return
    counts = Counter(text)
    often = {c for c in counts if counts[c] >= min_count} - {"\ufffd"}
    assert set(found.charset.alphabet) == often
    assert text_of(found) == "".join(c if c in often else "\ufffd" for c in text)
    assert found.unknown == sum(c not in often for c in text)


def test_a_given_alphabet(tmp_path, cache_dir):
    charset = Charset("abcß", lowercase=True)
    found = open_corpus([write(tmp_path, "ABxß".encode())], cache_dir=cache_dir, charset=charset)
    assert found.charset == charset and found.unknown == 1 and text_of(found) == "ab\ufffdß"


def test_more_than_65536_characters(tmp_path, cache_dir):
    text = "".join(
        map(chr, [*range(0x20, 0xD800), *range(0xE000, 0xFFFD), *range(0x10000, 0x14000)])
    )
    found = open_corpus([write(tmp_path, text.encode())], cache_dir=cache_dir)
    assert len(found.charset) > 1 << 16 and found.tokens.numpy().dtype == np.uint32
    assert text_of(found) == text


@pytest.mark.parametrize(
    "bad",
    [{"min_count": 0}, {"normalize": "nfx"}, {"normalize": "nfc", "unit": "byte"},
     {"lowercase": True, "unit": "byte"}],
    ids=str,
)  # fmt: skip
def test_bad_options_are_named(tmp_path, bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        open_corpus([write(tmp_path, b"hello")], **bad)
