"""Beam search against exhaustive search, and against greedy decoding."""

import itertools

import numpy as np
import pytest
import torch
from small_models import greedy
from small_models import native_model as make_native
from small_models import small_model as make

from charrnn import Charset, GRUEncode
from charrnn.api import LanguageModel
from charrnn.data.charset import BOUNDARY

LENGTH = 4
SETTINGS = [
    {},
    {"stop": "b", "length_penalty": 0},
    {"stop": ["ab", "d\n"], "length_penalty": 0.6},
    {"stop": ["ab", "c", "☃"], "length_penalty": 3.0},
    {"allow": "bcd", "stop": "dd", "length_penalty": 1.0},
    {"no_repeat": 2},
    {"no_repeat": 1, "allow": "abcd\n", "stop": "d"},
]


@pytest.fixture(scope="module")
def model():
    return make(sharpness=1.0)


@torch.no_grad()
def log_likelihoods(model, prompt, texts):
    """Log probabilities of texts of one length after a prompt."""
    rows = np.stack([model.charset.encode(prompt + text) for text in texts], 1)
    indices = torch.from_numpy(rows.astype(np.int64))
    logits, _ = model.model(indices[:-1], model.model.initial_state(len(texts)))
    log_probabilities = logits.log_softmax(-1)[len(prompt) - 1 :]
    return log_probabilities.gather(2, indices[len(prompt) :, :, None]).sum((0, 2)).tolist()


def is_text(prompt, text, stop=(), allow=None, no_repeat=None, length_penalty=0.6):
    """Whether generate could return prompt + text."""
    stops = [stop] if isinstance(stop, str) else list(stop)
    ends = [n for n in range(1, len(text) + 1)
            if text[:n].endswith((*stops, BOUNDARY))]  # fmt: skip
    whole, n = prompt + text, no_repeat or LENGTH + len(prompt)
    ngrams = [whole[i : i + n] for i in range(len(whole) - n + 1)]
    return (
        (ends == [len(text)] or (not ends and len(text) == LENGTH))
        and (allow is None or set(text) <= {*allow, BOUNDARY})
        and all(ngram not in ngrams[:i] for i, ngram in enumerate(ngrams) if i + n > len(prompt))
    )


def exhaustive(model, prompt, **settings):
    """Search exhaustively: the best text, and the scores of all."""
    alphabet = "\ufffd" + model.charset.alphabet
    scores = {}
    for length in range(1, LENGTH + 1):
        texts = map("".join, itertools.product(alphabet, repeat=length))
        texts = [text for text in texts if is_text(prompt, text, **settings)]
        penalty = ((5 + length) / 6) ** settings.get("length_penalty", 0.6)
        found = log_likelihoods(model, prompt, texts) if texts else []
        scores |= {text: likelihood / penalty for text, likelihood in zip(texts, found)}
    return max(scores, key=scores.get), scores


def plain_beam_search(model, prompt, beam, scores, **settings):
    """Beam search in Python, from the scores of all texts; ended texts leave the beam."""
    alphabet, kept, found = "\ufffd" + model.charset.alphabet, [""], []
    beginnings = {text[:n] for text in scores for n in range(LENGTH)}
    while kept:
        texts = [text + character for text in kept for character in alphabet]
        found += [text for text in texts if text in scores]
        texts = [text for text in texts if text in beginnings]
        likelihoods = dict(zip(texts, log_likelihoods(model, prompt, texts))) if texts else {}
        kept = sorted(texts, key=lambda text: -likelihoods[text])[:beam]
    return max(found, key=scores.get)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_wide_beam_finds_the_best_of_all_texts(model, settings):
    best, scores = exhaustive(model, "ca", **settings)
    assert len(scores) > 4
    found = model.generate("ca", LENGTH, beam=6**LENGTH, **settings)
    assert found == "ca" + best
    for beam in (1, 2, 3, 7):
        found = model.generate("ca", LENGTH, beam=beam, **settings)
        assert found == "ca" + plain_beam_search(model, "ca", beam, scores, **settings)


def test_the_best_text_may_end_with_its_document():
    charset = Charset("ab", documents=True)
    torch.manual_seed(4)
    model = GRUEncode(len(charset), 5, 1).double().eval()
    model.boundary = charset.boundary
    torch.nn.init.normal_(model.decoder.weight)
    model = LanguageModel(model, charset)
    ends = set()
    for alpha in (0, 0.5, 5.0):
        best, _ = exhaustive(model, "a", length_penalty=alpha)
        found = model.generate("a", LENGTH, beam=4**LENGTH, length_penalty=alpha)
        assert found == "a" + best.removesuffix(BOUNDARY)
        ends.add(len(best))
    assert len(ends) > 1  # the penalty decides its length


def test_a_beam_of_one_is_greedy(model):
    assert model.generate("ab", 30, beam=1) == greedy(model, "ab", 30)
    assert model.generate("ab", 0, beam=1) == "ab"


def test_a_wider_beam_finds_likelier_texts():
    native, charset = make_native()
    model = LanguageModel(native, charset)
    found = [model.generate("ab", 40, beam=beam) for beam in (1, 4, 16)]
    likelihoods = log_likelihoods(model, "ab", [text[2:] for text in found])
    assert likelihoods[0] < likelihoods[2] and found[1] == model.generate("ab", 40, beam=4, seed=9)
    native.gru.backend = "reference"
    assert found == [model.generate("ab", 40, beam=beam) for beam in (1, 4, 16)]


def test_bytes_end_with_their_stop():
    model = make("€é\n", "byte", sharpness=1.0)
    for stop in ("é", "\n"):
        text = model.generate("€", 12, beam=50, stop=stop, length_penalty=0)
        assert text.endswith(stop) and stop not in text[1:-1]


def test_logits_that_are_not_finite_are_an_error():
    model = make()
    torch.nn.init.constant_(model.model.decoder.bias, np.nan)
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        model.generate("a", 3, beam=2)
