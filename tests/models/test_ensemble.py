"""Ensembles: the mean of the probabilities, with the interface of one model."""

import copy

import numpy as np
import pytest
import torch
from small_models import saved_model as make

import charrnn
from charrnn import GRUEncode, GRUResize, InputError
from charrnn.checkpoint.serialization import save
from charrnn.data.windows import EvaluationWindows
from charrnn.evaluation.dynamic import evaluate_dynamic, mean_squared_gradients
from charrnn.evaluation.static import evaluate

ALPHABET = "\n abcdefgh"
SHAPES = [(GRUEncode, 5, 3), (GRUResize, 7, 1), (GRUEncode, 5, 2)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints of models that differ in kind, hidden size and layers."""
    folder = tmp_path_factory.mktemp("members")
    for i, (kind, hidden_size, layers) in enumerate(SHAPES):
        save(make(kind, ALPHABET, hidden_size, layers, seed=i)[2], folder / f"{i}.ckpt")
    return [folder / f"{i}.ckpt" for i in range(len(SHAPES))]


@pytest.fixture(scope="module")
def together(files):
    return charrnn.load(files)


@torch.no_grad()
def test_the_mean_of_the_probabilities(files, together):
    torch.manual_seed(0)
    inputs = torch.randint(0, 11, (13, 4))
    every = []
    for file in files:
        model = charrnn.load(file).model
        every.append(model(inputs, model.initial_state(4))[0].softmax(-1))
    expected = torch.stack(every).mean(0)
    state, parts = together.model.initial_state(4), []
    for window in inputs.split([1, 5, 7]):
        logits, state = together.model(window, state)
        parts.append(logits.exp())
    torch.testing.assert_close(torch.cat(parts), expected)
    row = together.model(inputs[:, 2:3], together.model.initial_state(1))[0].exp()
    torch.testing.assert_close(row, expected[:, 2:3])


def test_one_checkpoint_is_not_an_ensemble(files):
    text = "a bad cab\n"
    assert (charrnn.load(files[:1]).score(text) == charrnn.load(files[0]).score(text)).all()


def test_scores_samples_and_sessions(files, together):
    text = "a bad cab\nfed a gaffe"
    every = np.stack([charrnn.load(file).score(text) for file in files])
    np.testing.assert_allclose(together.score(text), -np.log(np.exp(-every).mean(0)), atol=1e-5)
    written = together.generate("ab", 40, seed=3)
    assert together.generate_many(3, "ab", 40, seed=3)[0] == written != "ab"
    session = together.session(seed=3).feed("a").feed("b")
    assert "ab" + session.fork().generate(40) == written
    greedy = together.generate("ab", 9, temperature=0)
    for n in range(2, len(greedy)):  # one character at a time, by the scores of each way on
        ways = together.score_many([greedy[:n] + c for c in ALPHABET])
        assert ALPHABET[np.argmin([way[-1] for way in ways])] == greedy[n]


def test_dynamic_evaluation(together):
    """Update all members by the gradient of the ensemble's loss: one step of SGD, by hand."""
    torch.manual_seed(0)
    tokens = torch.randint(1, 11, (300,))
    model, windows = together.model, EvaluationWindows(tokens, 7, 150, rows=1, burn_in=20)
    static = evaluate(model, windows).nats
    squares = mean_squared_gradients(model, tokens[:150], 7)
    assert evaluate_dynamic(model, windows, 0.0, 0.0, squares).nats == pytest.approx(static)
    two = EvaluationWindows(tokens, 7, 150, 164, rows=1, burn_in=0)
    (first, then, _), (inputs, targets, _) = two
    learned = copy.deepcopy(model).requires_grad_()
    members, logp = learned.members, []
    states = [m.initial_state(1) for m in members]
    for m in members:
        logp.append(m(first, states[len(logp)])[0].log_softmax(-1))
    mean = torch.stack(logp).exp().mean(0).gather(-1, then[..., None])
    (-mean.log().mean()).backward()
    with torch.no_grad():
        state = model(first, model.initial_state(1))[1]
        for p in learned.parameters():
            p -= 0.5 * p.grad
        nats = learned.nll(inputs, targets, state)[0]
    expected = (-mean.log().sum().item() + nats.sum().item()) / 14
    assert evaluate_dynamic(model, two, 0.5).nats == pytest.approx(expected, rel=1e-5)


def test_an_ensemble_has_no_activations(together):
    for text in ("abc", ""):
        for look in (together.activations, together.gates):
            with pytest.raises(InputError, match="no units in common"):
                look(text)


def test_alphabets_must_be_equal(files, tmp_path):
    save(make(GRUEncode, "abc")[2], tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt: of another alphabet than .*0\.ckpt"):
        charrnn.load([*files, tmp_path / "other.ckpt"])
    with pytest.raises(InputError, match="names none"):
        charrnn.load([])


def test_a_damaged_member_is_named(files, tmp_path):
    damaged = make(GRUEncode, ALPHABET)[2]
    damaged["charrnn"]["settings"]["model"]["hidden_size"] += 1
    save(damaged, tmp_path / "damaged.ckpt")
    with pytest.raises(InputError, match=r"damaged\.ckpt: .*do not fit one another"):
        charrnn.load((*files, tmp_path / "damaged.ckpt"))
