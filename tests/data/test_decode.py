"""Text as people have it: newlines, byte order marks, encodings, and files that are not text."""

import codecs
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn import Charset, InputError
from charrnn.data import files
from charrnn.data.charset import BOUNDARY
from charrnn.data.corpus import open_corpus
from charrnn.data.datamodule import CharDataModule
from charrnn.data.decode import FEW, translate_newlines
from charrnn.data.text import read_text, unescape

PROSE = "Äpfel, 中文 and 😀.\nTwo lines\n" * 9
CHAR = Charset(newlines="universal")


@pytest.fixture
def write(tmp_path):
    def written(data, name="text.txt"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return written


def read(*files, charset=CHAR, **settings):
    return "".join(read_text(list(files), settings.pop("max_bytes", None), charset, **settings))


@given(st.lists(st.text("a\r\n"), max_size=5))
@example(["a\r", "\nb", "\r"])
def test_newlines_are_those_of_open(chunks):
    text = "".join(chunks)
    expected = io.TextIOWrapper(io.BytesIO(text.encode())).read()
    assert "".join(translate_newlines(iter(chunks))) == expected
    assert Charset(newlines="universal").preprocess(text) == expected


@pytest.mark.parametrize("block", [1, 2, 5, 1 << 18])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(b"", "utf-8"), (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"),
     (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_LE, "utf-32-le"),
     (codecs.BOM_UTF32_BE, "utf-32-be")],
    ids=["none", "utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"],
)  # fmt: skip
def test_marks_and_newlines(write, monkeypatch, mark, encoding, newline, block):
    monkeypatch.setattr(files, "BLOCK", block)
    text = PROSE.replace("\n", newline)
    file = write(mark + text.encode(encoding))
    assert read(file) == PROSE
    assert read(file, charset=Charset()) == text
    raw = read(file, charset=Charset(unit="byte"))
    assert raw.encode("latin-1") == file.read_bytes()


def test_files_of_several_encodings_are_one_text(write, tmp_path):
    parts = [("ab\r", "utf-8-sig"), ("\ncé", "utf-16"), ("d€", "utf-8"), ("f", "utf-32")]
    paths = [write(text.encode(name), f"{i}.txt") for i, (text, name) in enumerate(parts)]
    assert read(*paths) == "ab\ncéd€f"
    marked = read(*paths, document="file")
    assert marked == "".join(BOUNDARY + t for t in ("ab\n", "\ncé", "d€", "f"))
    assert read(*paths, document="b\n") == f"{BOUNDARY}a{BOUNDARY}céd€f"
    # The same bytes with other borders between files are another text, and so another cache entry.
    whole = write(b"".join(path.read_bytes() for path in paths[:3:2]), "whole.txt")
    cut = open_corpus(paths[:3:2], cache_dir=tmp_path / "cache")
    assert cut.charset.decode(cut.tokens.tolist()) == "ab\nd€"
    swapped = [write(b"d\xef\xbb", "x"), write(b"\xbfab", "y")]
    assert read(*swapped) == "d\ufeffab" == read(write(b"d\xef\xbb\xbfab", "z"))
    assert whole.exists()


@pytest.mark.parametrize("max_bytes", range(2, 15))
def test_max_bytes_cuts_between_characters_of_any_encoding(write, max_bytes):
    file = write("a中😀b".encode("utf-16"))  # 2 + 2 + 2 + 4 + 2 bytes
    whole = {4: "a", 6: "a中", 10: "a中😀", 12: "a中😀b"}
    expected = whole[max((n for n in whole if n <= max_bytes), default=4)] if max_bytes > 3 else ""
    assert read(file, max_bytes=max_bytes) == expected


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "utf-16-le", "utf-8-sig"])
def test_a_named_encoding(write, tmp_path, encoding):
    text = "日本\n" * 20 if encoding == "shift_jis" else "Grüße\n" * 20
    file = write(text.encode(encoding))
    found = open_corpus([file], cache_dir=tmp_path / "cache", encoding=encoding)
    assert found.charset.decode(found.tokens.tolist()) == text and found.unknown == 0
    if encoding != "utf-8-sig":
        with pytest.raises(InputError, match=r"text\.txt: is not text in UTF-8"):
            open_corpus([file], cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    "data",
    [bytes(range(256)) * 20, b"\x89PNG\r\n\x1a\n" + np.arange(5000).tobytes(),
     "Grüße an alle\n".encode("latin-1") * 30, "no mark".encode("utf-16-le") * 9,
     codecs.BOM_UTF16_LE + b"\0\xdc" * 50],
    ids=["bytes", "picture", "latin-1", "utf-16", "surrogates"],
)  # fmt: skip
def test_what_is_not_text_is_said_to_be_so(write, tmp_path, data):
    file = write(data)
    with pytest.raises(InputError) as error:
        CharDataModule(str(file), cache_dir=str(tmp_path / "cache"))
    message = str(error.value)
    assert message.startswith(f"{file}: is not text in UTF-") and "\n" not in message
    assert "data.unit=byte" in message and "data.encoding" in message
    assert len(open_corpus([file], "byte", cache_dir=tmp_path / "cache").tokens) == len(data)
    lenient = {"encoding": "utf-8", "newlines": "keep"}  # as before there were the two settings
    found = open_corpus([file], cache_dir=tmp_path / "cache", **lenient)
    assert len(found.tokens) == len(data.decode("utf-8", "replace"))


def test_a_few_bad_bytes_are_unknown(write, tmp_path):
    found = open_corpus([write(b"abc\xff" * FEW)], cache_dir=tmp_path / "cache")
    assert found.unknown == FEW
    assert read(write(b"a" * 9000 + b"\xff" * 9)).endswith("a" + "\ufffd" * 9)
    with pytest.raises(InputError, match=r"\(9 of its first 8,000 bytes cannot be read\)"):
        read(write(b"a" * 7991 + b"\xff" * 9))
    assert read(write("\ufffd".encode() * 99)) == "\ufffd" * 99  # as the file has it


@pytest.mark.parametrize("name", ["latin-2000", "hex", "rot13", "", "a\0b", "idna"])
def test_encodings_that_there_are_not(write, name):
    with pytest.raises(InputError, match=r"^encoding=.* must be auto, or a codec"):
        open_corpus([write(b"hello")], encoding=name)


def test_settings_out_of_range(write):
    with pytest.raises(InputError, match=r"^newlines=unix must be universal or keep"):
        CharDataModule(str(write(b"hello")), newlines="unix")
    with pytest.raises(InputError, match=r"^encoding=latin-1 must be auto with unit=byte"):
        open_corpus([write(b"hello")], "byte", encoding="latin-1")
    with pytest.raises(InputError, match=r"^newlines=universal must be keep with unit=byte"):
        Charset("a", "byte", newlines="universal")


def test_the_charset_of_a_checkpoint_says_how_prompts_are_read(write, tmp_path):
    file = write(b"a\r\nb\r\n")
    data = CharDataModule(str(file), cache_dir=str(tmp_path / "cache"))
    state = data.corpus.charset.state_dict()
    assert state["newlines"] == "universal" and state["characters"] == "\nab"
    assert Charset(**state).encode("b\r\na").tolist() == [3, 1, 2]
    del state["newlines"]  # as charrnn 0.1 wrote it
    assert Charset(**state).unknown_characters("b\r\na") == "\r"
    kept = CharDataModule(str(file), cache_dir=str(tmp_path / "cache"), newlines="keep")
    assert kept.corpus.charset.alphabet == "\n\rab"


def test_typed_escapes():
    assert unescape(r"a\n\tb\\n\x") == "a\n\tb\\n\\x"
