"""What may come: alphabets and the guard against repetition, by the kernels and by the loop."""

import re

import numpy as np
import pytest
import torch
from small_models import by_the_loop, drawn
from small_models import native_model as make

from charrnn import Charset, GRUEncode, InputError
from charrnn.api import LanguageModel
from charrnn.data.charset import BOUNDARY
from charrnn.generation import sampler
from charrnn.generation.decoding import RECENT, Decoding, without_repeats


@pytest.mark.parametrize("allow", ["abc\n", "re:[x-zäöü]", "re:[^a-y]", "q"])
@pytest.mark.parametrize("others", [{}, {"temperature": 0}, {"top_k": 2}, {"min_p": 0.2}], ids=str)
def test_only_what_is_allowed_comes(allow, others):
    """Also where another character is by far the likeliest."""
    model, charset = make()
    with torch.no_grad():
        model.decoder.bias[5] = 50.0
    decoding = Decoding(allow=allow, **others)
    found = drawn(model, charset, 3, decoding, length=90)
    pattern = allow[3:] if allow.startswith("re:") else f"[{allow}]"
    assert all(re.fullmatch(pattern, c) for c in charset.decode(found.flatten().tolist()))
    assert found.equal(by_the_loop(model, charset, 3, decoding, "ab", 90))
    assert len(found.unique()) > 1 or others.get("temperature") == 0 or allow == "q"


def test_an_alphabet_renormalizes():
    """Chances among what is allowed are as before in proportion."""
    logits = torch.tensor([[0.3, -1.2, 2.0, 0.0, 1.1]])
    mask = torch.tensor([True, False, False, True, True])
    chances, whole = sampler.probabilities(logits, allowed=mask), logits.double().softmax(-1)
    torch.testing.assert_close(chances, whole * mask / (whole * mask).sum(), rtol=1e-12, atol=0)


def test_what_no_alphabet_can_be():
    charset = Charset("ab\n")
    for allow, message in [
        ("abxé", r"allow: the model does not know 'x' \(U\+0078\), 'é' \(U\+00E9\)"),
        ("re:[0-9]", "must be an expression that matches a single character"),
        ("re:ab", "must be an expression that matches a single character"),
        ("re:[", "no regular expression: unterminated"),
    ]:
        with pytest.raises(InputError, match=message):
            Decoding(allow=allow).allowed(charset)


def test_alphabets_are_read_as_texts_are():
    lower = Charset("ab", lowercase=True)
    assert Decoding(allow="A").allowed(lower).tolist() == [False, True, False]
    by_bytes = Charset.from_text("é2", "byte")  # 2, 0xA9, 0xC3
    assert Decoding(allow="é").allowed(by_bytes).tolist() == [False, False, True, True]
    assert Decoding(allow=r"re:\w").allowed(by_bytes).tolist() == [False, True, False, False]
    documents = Charset("ab", documents=True)  # where a document may end whatever is allowed
    assert Decoding(allow="b").allowed(documents).tolist() == [False, False, True, True]
    assert charset_of(Decoding(allow="re:.").allowed(documents), documents) == "ab" + BOUNDARY
    assert Decoding(allow=":er").allowed(Charset(":er")).sum() == 3


def charset_of(mask, charset):
    return charset.decode(mask.nonzero()[:, 0].tolist())


def test_no_characters_come_again():
    """None that came was forbidden by the last 1000, of the prompt too."""
    model, charset = make()
    prompt = "abcabd" * 50
    for n, allow in ((1, None), (2, None), (3, "abcd"), (4, "re:[a-z]")):
        decoding = Decoding(no_repeat=n, allow=allow)
        found = drawn(model, charset, 2, decoding, prompt, length=1300)
        assert n != 2 or found.equal(by_the_loop(model, charset, 2, decoding, prompt, 1300))
        allowed = decoding.allowed(charset)
        count = len(charset) if allowed is None else int(allowed.sum())
        waived = 0
        for row in found.t().tolist():
            text = charset.encode(prompt).tolist() + row
            for place in range(len(text) - len(row), len(text), 7):
                recent = text[max(0, place - RECENT) : place]
                tail = recent[len(recent) - n + 1 :]
                after = {recent[i + n - 1] for i in range(len(recent) - n + 1)
                         if recent[i : i + n - 1] == tail}  # fmt: skip
                if text[place] in after:
                    waived += 1
                    assert len(after) == count  # all of them had come
        assert (waived > 0) == (n in (1, 2, 3)), n


def test_where_no_character_is_left_all_may_come():
    texts = np.array([[1, 2, 1, 3, 1], [0, 0, 0, 0, 1]])
    allowed = torch.tensor([False, False, True, True])
    assert without_repeats(allowed, texts, 2, 4).tolist() == [[False, False, True, True]] * 2
    assert without_repeats(None, texts, 2, 4).tolist() == [[True, True, False, False], [True] * 4]
    assert without_repeats(None, texts, 9, 4).all()


def test_the_guard_outlives_the_pieces_of_a_text():
    """A document that may go on with nothing new ends, and texts are those of one sample alone."""
    charset = Charset("ab", documents=True)
    torch.manual_seed(0)
    model = LanguageModel(GRUEncode(len(charset), 5, 1).eval(), charset)
    many = model.generate_many(3, "a", 50, seed=1, no_repeat=2, allow="ab")
    assert many[0] == model.generate("a", 50, seed=1, no_repeat=2, allow="ab")
    for text in many:
        pairs = [text[i : i + 2] for i in range(len(text) - 1)]
        assert len(set(pairs)) == len(pairs) < 5
