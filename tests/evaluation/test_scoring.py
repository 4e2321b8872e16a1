"""sample.py score=FILE: a table of characters or lines, which says what charrnn.load does."""

import math

import numpy as np
import pytest
import torch
from helpers import TEXT

import charrnn
from charrnn import Charset, GRUEncode, InputError
from charrnn.api import LanguageModel
from charrnn.data.charset import BOUNDARY
from charrnn.evaluation.scoring import table


def make(alphabet, **reading):
    torch.manual_seed(0)
    charset = Charset(alphabet, **reading)
    model = GRUEncode(len(charset), 6, 1).double().eval()
    model.boundary = charset.boundary
    return LanguageModel(model, charset)


def rows(model, file, **settings):
    head, *lines = table(model.model, model.charset, str(file), **settings)
    assert all(line.count("\t") == head.count("\t") and "\n" not in line for line in lines)
    return [line.split("\t") for line in lines]


def bits(model, text):
    return model.score(text) / math.log(2)


def test_every_character_of_a_file(tmp_path):
    model, text = make("abc\t\n\\"), "ab\n\tc\\\x1b\x85\u2603\r\n"
    (tmp_path / "text").write_text(text, "utf-8", newline="")
    found = rows(model, tmp_path / "text")
    shown = ["a", "b", "\\n", "\\t", "c", "\\", "\\x1b", "\\x85", "\u2603", "\\r", "\\n"]
    assert [row[0] for row in found] == shown and found[0][1] == ""
    np.testing.assert_allclose([float(row[1]) for row in found[1:]], bits(model, text), atol=1e-4)


def test_lines_are_scored_each_by_itself_after_a_line_break(tmp_path):
    model = make("abc\n")
    lines = ["abc", "", "a\tb", "c" * 50, "a"]
    (tmp_path / "text").write_text("\n".join(lines) + "\n", "utf-8")
    found = rows(model, tmp_path / "text", by="line")
    assert [row[3] for row in found] == [line.replace("\t", "\\t") for line in lines]
    assert [int(row[2]) for row in found] == [len(line) for line in lines]
    totals = [bits(model, "\n" + line).sum() for line in lines]
    np.testing.assert_allclose([float(row[0]) for row in found], totals, atol=1e-4)
    assert [row[1] for row in found if row[2] == "0"] == [""]
    means = [total / len(line) for total, line in zip(totals, lines) if line]
    np.testing.assert_allclose([float(row[1]) for row in found if row[1]], means, atol=1e-4)


@pytest.mark.parametrize("by", ["character", "line"])
def test_documents_begin(tmp_path, by):
    """Where a model knows their beginning, even the first character has a context."""
    model = make("abc\n", documents=True)
    (tmp_path / "text").write_text("abba\ncc", "utf-8")
    found = [float(row[by == "character"]) for row in rows(model, tmp_path / "text", by=by)]
    if by == "character":
        wanted = bits(model, BOUNDARY + "abba\ncc")
    else:
        wanted = [bits(model, BOUNDARY + line).sum() for line in ("abba", "cc")]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_bytes_and_normal_forms(tmp_path):
    (tmp_path / "text").write_text("É", "utf-8")
    model = make(map(chr, range(256)), unit="byte")
    assert [row[0] for row in rows(model, tmp_path / "text")] == ["\\xc3", "\\x89"]
    model = make("e\u0301", normalize="nfd", lowercase=True)
    assert [row[0] for row in rows(model, tmp_path / "text")] == ["e", "\u0301"]


@pytest.mark.parametrize("by", ["character", "line"])
@pytest.mark.parametrize("text", ["", "a", "\n"])
def test_short_files(tmp_path, text, by):
    (tmp_path / "text").write_text(text, "utf-8")
    found = rows(make("abc"), tmp_path / "text", by=by)
    assert len(found) == len(text)
    assert all(row[0] == "0.0000" if by == "line" else row[1] == "" for row in found)


def test_a_missing_file_and_a_wrong_table(tmp_path):
    with pytest.raises(InputError, match=r"^score=.*nowhere: no such file"):
        list(table(make("abc").model, make("abc").charset, str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"^by=word must be character or line"):
        list(table(make("abc").model, make("abc").charset, __file__, by="word"))


def test_the_command_line_writes_the_table_alone(command, trained, tmp_path):
    model = charrnn.load(trained)
    (tmp_path / "a, b.txt").write_text(TEXT[:300], "utf-8")
    result = command("sample.py", f"checkpoint={trained}", "score=a, b.txt", cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    head, first, *lines = result.out.splitlines()
    assert (head, first) == ("character\tbits", f"{TEXT[0]}\t".replace("\n", "\\n"))
    total = sum(float(line.split("\t")[1]) for line in lines)
    assert total == pytest.approx(bits(model, TEXT[:300]).sum(), rel=1e-4)
    # In Python: which of two texts is likelier.
    texts = [TEXT[:300], "", TEXT[:100][::-1], TEXT[:100]]
    found = model.score_many(texts)
    for nats, text in zip(found, texts):
        np.testing.assert_allclose(nats, model.score(text), atol=1e-5)
    assert found[3].sum() < found[2].sum()
