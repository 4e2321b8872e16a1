"""Tables of surprisal against the scores of the model, by character and by line."""

import math

import numpy as np
import pytest
import torch

from charrnn import Charset, GRUEncode, InputError
from charrnn.api import LanguageModel
from charrnn.data.charset import BOUNDARY
from charrnn.evaluation.scoring import score_table


def make(alphabet, **reading):
    torch.manual_seed(0)
    charset = Charset(alphabet, **reading)
    model = GRUEncode(len(charset), 6, 1).double().eval()
    model.boundary = charset.boundary
    return LanguageModel(model, charset)


def rows(model, file, **settings):
    head, *lines = score_table(model.model, model.charset, str(file), **settings)
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


def test_lines_are_scored_separately_after_a_line_break(tmp_path):
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
def test_documents_start_with_a_boundary(tmp_path, by):
    """Where a model knows documents, the first character has a context too."""
    model = make("abc\n", documents=True)
    (tmp_path / "text").write_text("abba\ncc", "utf-8")
    found = [float(row[by == "character"]) for row in rows(model, tmp_path / "text", by=by)]
    if by == "character":
        expected = bits(model, BOUNDARY + "abba\ncc")
    else:
        expected = [bits(model, BOUNDARY + line).sum() for line in ("abba", "cc")]
    np.testing.assert_allclose(found, expected, atol=1e-4)


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


def test_bad_settings_are_named(tmp_path):
    with pytest.raises(InputError, match=r"^score=.*nowhere: no such file"):
        list(score_table(make("abc").model, make("abc").charset, str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"^by=word must be character or line"):
        list(score_table(make("abc").model, make("abc").charset, __file__, by="word"))
