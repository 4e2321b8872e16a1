"""Text in chunks: documents, and positions where normalization can split."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn import Charset, InputError
from charrnn.data import files
from charrnn.data.charset import BOUNDARY, UNKNOWN
from charrnn.data.text import mark_documents, read_text


@given(st.text("ab|\uffff"), st.sampled_from(["|", "ab", "aab", "||", "abab"]), st.integers(1, 5))
@example("aabaab", "aab", 1)
@example("x||", "||", 2)
def test_separated_documents(text, separator, size):
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    found = "".join(mark_documents(iter(chunks), separator))
    parts = text.replace(BOUNDARY, UNKNOWN).split(separator)
    assert found == "".join(BOUNDARY + part for part in parts if part)
    whole = BOUNDARY + text.replace(BOUNDARY, UNKNOWN) if text else ""
    assert "".join(mark_documents(iter(chunks), None)) == whole


def test_text_that_cannot_be_split_for_normalization(tmp_path, monkeypatch):
    """A base character and combining marks only: it would have to be held in memory."""
    monkeypatch.setattr("charrnn.data.text.LONGEST", 50)
    monkeypatch.setattr(files, "BLOCK", 8)
    file = tmp_path / "text.txt"
    file.write_bytes(("a" + "\u0301" * 100).encode())
    assert len("".join(read_text([file], None, Charset()))) == 101
    with pytest.raises(InputError, match=r"^data\.normalize: \d+ characters of combining marks"):
        list(read_text([file], None, Charset(normalize="nfc")))
