"""The contract of a model: what works for every ``initial_state`` and ``forward``, of any state."""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from other_models import FORMS, Counter
from torch import nn

from charrnn import Charset, GRUEncode, InputError, models
from charrnn.api import LanguageModel
from charrnn.checkpoint.initialize import vocab_axes
from charrnn.data.charset import BOUNDARY
from charrnn.data.windows import EvaluationWindows
from charrnn.evaluation.dynamic import evaluate_dynamic, mean_squared_gradients
from charrnn.evaluation.static import evaluate, score
from charrnn.models import LSTM, Ensemble, MinGRU, contract
from charrnn.models.state import leaves
from charrnn.models.verify import copy_model, verify_model

ALPHABET = "\n abcdefgh"
KINDS = {form: functools.partial(Counter, form=form) for form in FORMS} | {
    "lstm": functools.partial(LSTM, hidden_size=5),
    "min_gru": functools.partial(MinGRU, hidden_size=5),
    "gru": functools.partial(GRUEncode, hidden_size=5, backend="reference"),
}
kinds = pytest.mark.parametrize("name", KINDS)


def make(name, documents=False):
    torch.manual_seed(0)
    charset = Charset(ALPHABET, documents=documents)
    model = KINDS[name](len(charset)).double().eval()
    for p in model.parameters():
        nn.init.uniform_(p, -1, 1)
    model.boundary = charset.boundary
    return LanguageModel(model, charset)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@kinds
def test_windows_continue(name):
    model = make(name).model
    inputs, targets = torch.randint(0, 11, (2, 13, 4))
    whole, final = contract.run(model, inputs, contract.initial_state(model, 4))
    state, parts = contract.initial_state(model, 4), []
    for part in inputs.split([1, 5, 7]):
        logits, state = contract.run(model, part, state)
        parts.append(logits)
    close(torch.cat(parts), whole)
    start = contract.initial_state(model, 4)
    nats = F.cross_entropy(whole.flatten(0, 1), targets.flatten(), reduction="none")
    targets = targets.masked_fill(targets == 3, -100)
    nats = nats.view(13, 4).masked_fill(targets < 0, 0)
    found, after = contract.nll(model, inputs, targets, start)
    close(found, nats)
    loss, also = contract.loss(model, inputs, targets, start)
    close(loss, nats.sum() / (targets >= 0).sum())
    for other in (after, also, contract.advance(model, inputs, start), state):
        assert len(leaves(other)) == len(leaves(final))
        for x, y in zip(leaves(other), leaves(final)):
            close(x, y)


@kinds
def test_documents_are_independent(name):
    """In one text and in the rows of a batch they score as they do by themselves."""
    language_model = make(name, documents=True)
    model, charset = language_model.model, language_model.charset
    texts = [BOUNDARY + text for text in ("abcabc", "c", "bbacbbbacbabc")]
    indices = [torch.from_numpy(charset.encode(text).astype(int)) for text in texts]
    together = score(model, torch.cat(indices), 4)
    starts = np.cumsum([len(text) for text in texts])[:-1] - 1
    separate = np.concatenate([score(model, part) for part in indices])
    np.testing.assert_allclose(np.delete(together, starts), separate, atol=1e-12)
    rows = torch.stack([part.repeat(20)[:20] for part in indices], 1)
    other = contract.run(model, rows, contract.initial_state(model, 3))[1]
    logits, _ = contract.run(model, rows, other)  # whatever was read before
    for row in range(3):
        close(
            logits[:, row],
            contract.run(model, rows[:, row : row + 1], model.initial_state(1))[0][:, 0],
        )
    loss, _ = contract.loss(model, rows, rows, other)
    close(loss, F.cross_entropy(logits.flatten(0, 1), rows.flatten()))


def test_methods_of_a_class_are_cut_at_documents():
    """Where a class brings its own loss, nll and activations but knows no documents."""

    class Own(MinGRU):
        def loss(self, inputs, targets, state):
            logits, state = self(inputs, state)
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state

        def nll(self, inputs, targets, state):
            logits, state = self(inputs, state)
            return F.cross_entropy(logits.mT, targets, reduction="none"), state

    torch.manual_seed(0)
    own = Own(11, 5).double()
    plain = MinGRU(11, 5).double()
    plain.load_state_dict(own.state_dict())
    inputs, targets = torch.randint(0, 11, (2, 20, 3))
    state = torch.randn(2, 3, 5).double()
    for boundary in (None, 4):
        own.boundary = plain.boundary = boundary
        for function in (contract.loss, contract.nll):
            for a, b in zip(
                function(own, inputs, targets, state), function(plain, inputs, targets, state)
            ):
                close(a, b)
    activations = contract.activations(own, inputs, state)
    assert activations.shape == (2, 20, 3, 5)
    close(activations[:, -1], contract.run(own, inputs, state)[1])


@kinds
def test_text_and_scores(name, tmp_path):
    """Samples, decoding, sessions and scores agree with one another."""
    model = make(name)
    text = model.generate("ab", 40, seed=3)
    assert model.generate_many(3, "ab", 40, seed=3)[0] == text
    session = model.session(seed=3).feed("a").feed("b")
    session.save(tmp_path / "session.pt")
    assert "ab" + session.fork().generate(40) == text
    assert "ab" + model.session(tmp_path / "session.pt").generate(40) == text
    greedy = model.generate("ab", 8, temperature=0)
    for n in range(2, len(greedy)):
        ways = model.score_many([greedy[:n] + c for c in ALPHABET])
        assert ALPHABET[np.argmin([way[-1] for way in ways])] == greedy[n]
    best = model.generate("ab", 3, beam=200, length_penalty=0.0, allow=ALPHABET[:4])
    costs = {a + b + c: 0.0 for a in ALPHABET[:4] for b in ALPHABET[:4] for c in ALPHABET[:4]}
    for way, nats in zip(costs, model.score_many(["ab" + way for way in costs])):
        costs[way] = nats[1:].sum()
    assert best == "ab" + min(costs, key=costs.get)
    for settings in ({"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}, {"no_repeat": 3}):
        assert len(model.generate("ab", 20, seed=1, **settings)) == 22
    long = text * 20
    np.testing.assert_allclose(score(model.model, model._indices(long), 3), model.score(long))


@kinds
def test_evaluation(name):
    """Warm, cold and dynamic, in any number of rows."""
    model = make(name).model
    tokens = torch.randint(1, 11, (300,))
    cold = evaluate(model, EvaluationWindows(tokens, 7, rows=1, burn_in=0)).nats
    assert cold == pytest.approx(score(model, tokens).mean())
    one, three = (evaluate(model, EvaluationWindows(tokens, 7, 150, rows=r)).nats for r in (1, 3))
    assert one == pytest.approx(three)
    squares = mean_squared_gradients(model, tokens, 7)
    assert len(squares) == len(list(model.parameters()))
    for form in (None, squares):
        windows = EvaluationWindows(tokens, 7, 150, rows=2)
        before = copy.deepcopy(model.state_dict())
        assert evaluate_dynamic(model, windows, 0.0, 0.1, form).nats == pytest.approx(one)
        assert evaluate_dynamic(model, windows, 0.01, 0.1, form).nats != pytest.approx(one)
        assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_ensembles_of_different_kinds():
    members = [make(name).model for name in KINDS]
    model = Ensemble(members).eval()
    inputs = torch.randint(0, 11, (13, 4))
    expected = torch.stack([m(inputs, m.initial_state(4))[0].softmax(-1) for m in members]).mean(0)
    logits, state = model(inputs[:5], model.initial_state(4))
    more, _ = model(inputs[5:], state)
    close(torch.cat([logits, more]).exp(), expected)
    together = LanguageModel(model, make("lstm").charset)
    text = together.generate("ab", 30, seed=1)
    assert together.generate_many(2, "ab", 30, seed=1)[0] == text
    assert together.generate("a", 5, beam=3)
    verify_model(model, 11)


@pytest.mark.parametrize("kind", [LSTM, MinGRU, GRUEncode, models.GRUResize, Counter])
def test_axes_of_the_vocabulary(kind):
    """Found by building a larger model, where a class does not say them."""
    model = kind(11)
    found = vocab_axes(model, 11, kind)
    if kind is Counter:
        assert found == {"weight": 0}
    else:
        del kind.VOCAB_AXES
        try:
            missing = [c for c in kind.__mro__[1:] if "VOCAB_AXES" in vars(c)]
            if not missing:
                assert vocab_axes(model, 11, kind) == found
        finally:
            kind.VOCAB_AXES = found


@pytest.mark.parametrize("name", ["lstm", "min_gru", *FORMS])
def test_what_keeps_the_contract_passes(name):
    model = make(name).model.train()
    before = torch.get_rng_state()
    verify_model(model, 11)
    assert model.training and torch.get_rng_state().equal(before)


class Wrong(Counter):
    """A model with one method replaced."""

    def __init__(self, **methods):
        super().__init__(11)
        self.methods = methods

    def initial_state(self, batch_size):
        return self.methods.get("initial_state", super().initial_state)(batch_size)

    def forward(self, inputs, state):
        logits, state = super().forward(inputs, state)
        return self.methods.get("result", lambda *results: results)(logits, state)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"initial_state": lambda b: torch.zeros(2, 1, b)},
         r"initial_state\(2\) returned \(2, 1, 2\); dimension 1 .* state_batch_dim"),
        ({"initial_state": lambda b: torch.zeros(1)}, r"returned \(1,\); dimension 1"),
        ({"initial_state": lambda b: (torch.zeros(1, 2, 2), 0)}, r"returned \[\(1, 2, 2\), int\]"),
        ({"initial_state": lambda b: []}, "not a tensor"),
        ({"result": lambda logits, state: logits}, r"forward returned \(3, 2, 11\), not \(logits"),
        ({"result": lambda logits, state: (logits[..., :7], state)},
         r"forward returned logits \(3, 2, 7\) .* 11 characters; .* = \(3, 2, 11\)"),
        ({"result": lambda logits, state: (logits, state.repeat(2, 1, 1))},
         r"a state \(2, 2, 2\) after 3 steps; that of initial_state\(2\) is \(1, 2, 2\)"),
        ({"result": lambda logits, state: (logits, state.repeat(1 + (len(logits) > 9), 1, 1))},
         r"a state \(2, 2, 2\) after 40 steps; that"),
        ({"result": lambda logits, state: (logits, (state,))}, r"a state \[\(1, 2, 2\)\]"),
    ],
    ids=["batch", "no_batch", "number", "empty", "no_state", "width", "shape", "long",
         "nesting"],
)  # fmt: skip
def test_what_breaks_the_contract_is_named(methods, words):
    with pytest.raises(InputError, match=f"model: Wrong.*{words}") as error:
        verify_model(Wrong(**methods), 11)
    assert "\n" not in str(error.value)


def test_missing_methods_are_named():
    class Half(nn.Module):
        def forward(self, inputs, state):
            return inputs, state

    with pytest.raises(InputError, match="Half has no method initial_state"):
        verify_model(Half(), 11)
    with pytest.raises(InputError, match="RecurrentModel has no method initial_state"):
        verify_model(models.RecurrentModel(), 11)
    with pytest.raises(InputError, match=r"Counter has no method activations\(inputs, state\)"):
        make("dict").activations("abc")
    with pytest.raises(InputError, match=r"LSTM has no method gates\(inputs"):
        make("lstm").gates("abc")
    assert make("lstm").activations("").shape == (2, 5, 0)


def test_a_model_that_cannot_be_copied():
    model = make("dict").model
    model.cache = model.weight * 2  # not a leaf of the graph
    with pytest.raises(InputError, match=r"Counter cannot be copied by copy\.deepcopy"):
        copy_model(model)
