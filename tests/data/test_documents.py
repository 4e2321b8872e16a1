"""Documents in a corpus: where they start, and what separates them."""

import pytest

from charrnn import InputError
from charrnn.data.charset import BOUNDARY, UNKNOWN
from charrnn.data.corpus import open_corpus


@pytest.mark.parametrize("max_bytes", [None, 8])
def test_each_file_is_a_document(tmp_path, max_bytes):
    files = []
    for number, data in enumerate([b"ab\xc3", b"", b"\xa9c", "ef\uffffé".encode()]):
        files.append(tmp_path / f"{number}")
        files[-1].write_bytes(data)
    found = open_corpus(files, document="file", max_bytes=max_bytes, cache_dir=tmp_path)
    expected = ["ab\ufffd", "\ufffdc", "ef\ufffdé" if max_bytes is None else "ef"]
    text = found.charset.decode(found.tokens.tolist())
    assert text == "".join(BOUNDARY + part for part in expected)
    assert found.charset.documents and found.tokens[0] == found.charset.boundary
    # The same bytes, cut elsewhere, are other documents.
    files[0].write_bytes(b"a")
    files[1].write_bytes(b"b\xc3")
    again = open_corpus(files, document="file", cache_dir=tmp_path)
    assert again.sha256 == found.sha256 or max_bytes
    assert again.charset.decode(again.tokens.tolist()).startswith(f"{BOUNDARY}a{BOUNDARY}b")


def test_min_count_keeps_boundaries(tmp_path):
    file = tmp_path / "text"
    file.write_text("aab|baa", "utf-8")
    found = open_corpus([file], document="|", min_count=3, cache_dir=tmp_path, normalize="nfc")
    expected = f"{BOUNDARY}aa{UNKNOWN}{BOUNDARY}{UNKNOWN}aa"
    assert found.charset.decode(found.tokens.tolist()) == expected


@pytest.mark.parametrize(("document", "unit"), [("", "char"), ("file", "byte")])
def test_bad_documents_are_named(tmp_path, document, unit):
    file = tmp_path / "text"
    file.write_text("abc", "utf-8")
    with pytest.raises(InputError, match=r"^document="):
        open_corpus([file], unit, document=document, cache_dir=tmp_path)
