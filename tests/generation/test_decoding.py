"""Allowed characters and the n-gram mask, by the native kernels and by the plain loop."""

import re

import pytest
import torch
from small_models import by_the_loop, drawn
from small_models import native_model as make

from charrnn import Charset, GRUEncode, InputError
from charrnn.api import LanguageModel
from charrnn.data.charset import BOUNDARY
from charrnn.generation.context import RECENT
from charrnn.generation.decoding import Decoding


@pytest.mark.parametrize("allow", ["abc\n", "re:[x-zäöü]", "re:[^a-y]", "q"])
@pytest.mark.parametrize("others", [{}, {"temperature": 0}, {"top_k": 2}, {"min_p": 0.2}], ids=str)
def test_only_allowed_characters_are_generated(allow, others):
    """Also where a forbidden character is by far the likeliest."""
    model, charset = make()
    with torch.no_grad():
        model.decoder.bias[5] = 50.0
    decoding = Decoding(allow=allow, **others)
    found = drawn(model, charset, 3, decoding, length=90)
    pattern = allow[3:] if allow.startswith("re:") else f"[{allow}]"
    assert all(re.fullmatch(pattern, c) for c in charset.decode(found.flatten().tolist()))
    assert found.equal(by_the_loop(model, charset, 3, decoding, "ab", 90))
    assert len(found.unique()) > 1 or others.get("temperature") == 0 or allow == "q"


def test_bad_allow_settings_are_named():
    charset = Charset("ab\n")
    for allow, message in [
        ("abxé", r"allow: the model does not know 'x' \(U\+0078\), 'é' \(U\+00E9\)"),
        ("re:[0-9]", "must be an expression that matches a single character"),
        ("re:ab", "must be an expression that matches a single character"),
        ("re:[", "no regular expression: unterminated"),
    ]:
        with pytest.raises(InputError, match=message):
            Decoding(allow=allow).allowed_mask(charset)


def test_allow_is_read_as_the_charset_reads_texts():
    lower = Charset("ab", lowercase=True)
    assert Decoding(allow="A").allowed_mask(lower).tolist() == [False, True, False]
    by_bytes = Charset.from_text("é2", "byte")  # 2, 0xA9, 0xC3
    assert Decoding(allow="é").allowed_mask(by_bytes).tolist() == [False, False, True, True]
    assert Decoding(allow=r"re:\w").allowed_mask(by_bytes).tolist() == [False, True, False, False]
    documents = Charset("ab", documents=True)  # the end of a document is always allowed
    assert Decoding(allow="b").allowed_mask(documents).tolist() == [False, False, True, True]
    assert charset_of(Decoding(allow="re:.").allowed_mask(documents), documents) == "ab" + BOUNDARY
    assert Decoding(allow=":er").allowed_mask(Charset(":er")).sum() == 3


def charset_of(mask, charset):
    return charset.decode(mask.nonzero()[:, 0].tolist())


def test_no_ngram_is_repeated():
    """No character completes an n-gram of the last 1000 characters, prompt included."""
    model, charset = make()
    prompt = "abcabd" * 50
    for n, allow in ((1, None), (2, None), (3, "abcd"), (4, "re:[a-z]")):
        decoding = Decoding(no_repeat=n, allow=allow)
        found = drawn(model, charset, 2, decoding, prompt, length=1300)
        assert n != 2 or found.equal(by_the_loop(model, charset, 2, decoding, prompt, 1300))
        allowed = decoding.allowed_mask(charset)
        count = len(charset) if allowed is None else int(allowed.sum())
        waived = 0
        for row in found.t().tolist():
            text = charset.encode(prompt).tolist() + row
            for position in range(len(text) - len(row), len(text), 7):
                recent = text[max(0, position - RECENT) : position]
                tail = recent[len(recent) - n + 1 :]
                after = {recent[i + n - 1] for i in range(len(recent) - n + 1)
                         if recent[i : i + n - 1] == tail}  # fmt: skip
                if text[position] in after:
                    waived += 1
                    assert len(after) == count  # every character was excluded
        assert (waived > 0) == (n in (1, 2, 3)), n


def test_the_ngram_mask_spans_chunks():
    """A document ends where every other character is excluded; samples do not depend on B."""
    charset = Charset("ab", documents=True)
    torch.manual_seed(0)
    model = LanguageModel(GRUEncode(len(charset), 5, 1).eval(), charset)
    many = model.generate_many(3, "a", 50, seed=1, no_repeat=2, allow="ab")
    assert many[0] == model.generate("a", 50, seed=1, no_repeat=2, allow="ab")
    for text in many:
        pairs = [text[i : i + 2] for i in range(len(text) - 1)]
        assert len(set(pairs)) == len(pairs) < 5
