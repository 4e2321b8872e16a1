"""Static evaluation and scores against a plain loop; warm results for any number of rows."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import LIBRARY

from charrnn import Charset, GRUEncode, GRUResize
from charrnn.data.charset import BOUNDARY
from charrnn.data.windows import EvaluationWindows
from charrnn.evaluation.static import evaluate, score, score_many


@pytest.fixture(params=[GRUEncode, GRUResize], ids=lambda k: k.__name__)
def model(request):
    torch.manual_seed(0)
    return request.param(11, 5, 3).double().eval()


def random_text(N):
    return torch.randint(0, 11, (N,), generator=torch.Generator().manual_seed(1))


def plain_nats(model, indices):
    """Nats of each character, and whether it was the likeliest, one character at a time."""
    state, nats, correct = model.initial_state(1), [], []
    for now, then in itertools.pairwise(indices):
        logits, state = model(now.view(1, 1), state)
        nats.append(-logits[0, 0].log_softmax(0)[then].item())
        correct.append(logits[0, 0].argmax() == then)
    return np.array(nats), np.array(correct)


@pytest.mark.parametrize("N", [2, 3, 100])
@pytest.mark.parametrize("seq_len", [1, 7, 99, 1000])
def test_scores_against_a_plain_loop_for_any_seq_len(model, N, seq_len):
    indices = random_text(N)
    found = score(model, indices, seq_len)
    assert found.shape == (N - 1,) and found.dtype == np.float64
    np.testing.assert_allclose(found, plain_nats(model, indices)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("N", [0, 1])
def test_nothing_to_score(model, N):
    assert score(model, torch.zeros(N, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_many_texts_are_scored_in_their_order(model, rows):
    generator = np.random.default_rng(1)
    sizes = [0, 1, 2, 200, *generator.integers(0, 40, 21)]
    texts = [torch.from_numpy(generator.integers(0, 11, size)) for size in sizes]
    found = score_many(model, texts, 13, rows)
    assert [len(nats) for nats in found] == [max(0, size - 1) for size in sizes]
    for text, nats in zip(texts, found):
        np.testing.assert_allclose(nats, plain_nats(model, text)[0], rtol=0, atol=1e-12)
    assert score_many(model, []) == []


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("burn_in", [0, 10, 500])
@pytest.mark.parametrize(("begin", "end"), [(0, 90), (4, 60), (37, 90)])
def test_totals_against_a_plain_loop(model, begin, end, burn_in, rows):
    """Row by row, each from a zero state before its burn-in."""
    indices, T = random_text(90), 7
    windows = EvaluationWindows(indices, T, begin, end, rows, burn_in)
    begin, size = max(1, begin), len(windows) * T
    nats, correct = [], []
    for row in range(rows):
        first, last = begin + row * size, min(end, begin + (row + 1) * size)
        if first < last:
            context = max(0, first - 1 - burn_in)
            parts = plain_nats(model, indices[context:last])
            nats.append(parts[0][first - 1 - context :])
            correct.append(parts[1][first - 1 - context :])
    nats, correct = np.concatenate(nats), np.concatenate(correct)
    found = evaluate(model, windows)
    assert found.characters == len(nats) == end - begin
    assert found.total == pytest.approx(nats.sum(), abs=1e-9)
    assert found.correct == correct.sum()
    unknown = indices[begin:end].numpy() == 0
    assert found.unknown == unknown.sum() > 0
    assert found.unknown_total == pytest.approx(nats[unknown].sum(), abs=1e-9)
    assert found.unknown_cost == pytest.approx(nats.mean() - nats[~unknown].mean(), abs=1e-9)
    assert found.report() == pytest.approx({
        "nats": nats.mean(), "bpc": nats.mean() / math.log(2), "perplexity": np.exp(nats.mean()),
        "accuracy": correct.mean(),
    })  # fmt: skip


@pytest.mark.parametrize("N", [2, 8, 200])
def test_one_row_is_the_sum_of_the_scores(model, N):
    indices = random_text(N)
    found = evaluate(model, EvaluationWindows(indices, 30, rows=1))
    assert found.total == pytest.approx(score(model, indices).sum(), abs=1e-9)


@pytest.fixture(scope="module", params=[False, True], ids=["text", "documents"])
def learned(request):
    """A model trained on 12,000 characters, and these."""
    documents, torch_state = request.param, torch.get_rng_state()
    text = (LIBRARY.replace("\n\n", f"\n{BOUNDARY}") if documents else LIBRARY)[:12_000]
    charset = Charset(text, documents=documents)
    indices = torch.from_numpy(charset.encode(text).astype(np.int64))
    torch.manual_seed(0)
    model = GRUEncode(len(charset), 24, 1)
    torch.set_rng_state(torch_state)
    model.boundary = charset.boundary
    optimizer, state = torch.optim.Adam(model.parameters(), 1e-2), model.initial_state(30)
    rows = indices.view(30, 400).T
    for _ in range(20):
        for inputs, targets in zip(rows[:-1].split(40), rows[1:].split(40)):
            loss, state = model.loss(inputs, targets, state)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = state.detach()
    return model.eval(), indices


def test_warm_results_do_not_depend_on_the_rows(learned):
    model, indices = learned
    plain = score(model, indices)[8000:].mean()
    assert plain < 2.7
    cold = evaluate(model, EvaluationWindows(indices, 20, 8001, rows=500, burn_in=0)).nats
    assert cold > plain + 0.01
    for rows in (1, 3, 64, 100, 500):
        warm = evaluate(model, EvaluationWindows(indices, 20, 8001, rows=rows)).nats
        assert warm == pytest.approx(plain, abs=1e-4), rows
