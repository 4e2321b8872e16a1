"""Documents: where they begin, and that the state is reset there, in every backend."""

import re

import numpy as np
import pytest
import torch
from helpers import TEXT, TINY, load
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn import Charset, GRUEncode, GRUResize, InputError, generation
from charrnn import load as load_model
from charrnn.data.charset import BOUNDARY, UNKNOWN
from charrnn.data.corpus import open_corpus
from charrnn.data.text import mark_documents
from charrnn.evaluation.static import score
from charrnn.generation.decoding import Decoding
from charrnn.gru import GRU

B, T, H, I, L = 4, 13, 9, 5, 2  # noqa: E741


@given(st.text("ab|\uffff"), st.sampled_from(["|", "ab", "aab", "||", "abab"]), st.integers(1, 5))
@example("aabaab", "aab", 1)
@example("x||", "||", 2)
def test_separated_documents(text, separator, size):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = "".join(mark_documents(iter(pieces), separator))
    parts = text.replace(BOUNDARY, UNKNOWN).split(separator)
    assert found == "".join(BOUNDARY + part for part in parts if part)
    whole = BOUNDARY + text.replace(BOUNDARY, UNKNOWN) if text else ""
    assert "".join(mark_documents(iter(pieces), None)) == whole


@pytest.mark.parametrize("max_bytes", [None, 8])
def test_each_file_a_document(tmp_path, max_bytes):
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


def test_rare_boundaries_stay(tmp_path):
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


VARIANTS = [("reference", "before"), ("reference", "after"), ("native", "before"),
            ("native", "after"), ("torch", "after")]  # fmt: skip


def with_gradients(run, gru, *inputs):
    """Outputs, final state, and all gradients, also of what comes in through the final state."""
    for tensor in [*gru.parameters(), *inputs]:
        tensor.grad = None
    outputs, state = run()
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(t.shape, generator=generator).double() for t in (outputs, state)]
    ((outputs * weights[0]).sum() + (state * weights[1]).sum()).backward()
    return [outputs, state, *(t.grad for t in [*gru.parameters(), *inputs])]


@pytest.mark.parametrize(("backend", "reset"), VARIANTS)
@pytest.mark.parametrize("chance", [0.0, 0.1, 1.0])
def test_resets_against_one_step_after_the_other(backend, reset, chance):
    torch.manual_seed(0)
    gru = GRU(I, H, L, reset=reset, backend=backend).double()
    x = torch.randn(T, B, I).double().requires_grad_()
    state = torch.randn(L, B, H).double().requires_grad_()
    resets = torch.rand(T, B) < chance

    def by_steps():
        h, outputs = state, []
        for t in range(T):
            h = h * ~resets[t][None, :, None]
            output, h = gru(x[t : t + 1], h)
            outputs.append(output)
        return torch.cat(outputs), h

    found = with_gradients(lambda: gru(x, state, resets=resets), gru, x, state)
    for a, b in zip(found, with_gradients(by_steps, gru, x, state)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize])
def test_documents_are_scored_apart(kind):
    """One after the other they cost what each costs by itself, and so they do in the rows of a batch."""
    torch.manual_seed(0)
    charset = Charset("abc", documents=True)
    model = kind(len(charset), 7, 2).double().eval()
    model.boundary = charset.boundary
    texts = [BOUNDARY + text for text in ("abcabc", "c", "bbacbbbacbabc")]
    together = score(model, torch.from_numpy(charset.encode("".join(texts)).astype(int)), 4)
    starts = np.cumsum([len(text) for text in texts])[:-1] - 1
    single = [score(model, torch.from_numpy(charset.encode(text).astype(int))) for text in texts]
    np.testing.assert_allclose(np.delete(together, starts), np.concatenate(single), atol=1e-12)
    rows = np.stack([charset.encode((text * 10)[:20]).astype(int) for text in texts])
    rows = torch.from_numpy(rows)
    state = torch.randn(2, 3, 7).double()
    together, _ = model(rows.t(), state)
    for row in range(3):
        outputs, _ = model(rows[row][:, None], state[:, row : row + 1] * 0)
        torch.testing.assert_close(together[:, row], outputs[:, 0], rtol=0, atol=1e-12)
    assert model.activations(rows.t(), state).equal(model.activations(rows.t(), state * 0))


def test_a_sample_ends_with_its_document():
    charset = Charset("ab", documents=True)
    torch.manual_seed(0)
    model = GRUEncode(len(charset), 8, 1).eval()
    model.boundary = charset.boundary
    texts = [
        "".join(parts)
        for parts in zip(*generation.generate_texts(model, charset, "", 200, 5, seed=1))
    ]
    assert all(BOUNDARY not in text and len(text) < 200 for text in texts)
    assert len(set(texts)) > 1
    begun = generation.prefill(model, charset, charset.encode(BOUNDARY))._replace(count=0)
    first = next(generation.generate_chunks(model, charset, begun, 5, 1, Decoding()))
    first = charset.decode(first[0].tolist())
    assert [text[:1] or BOUNDARY for text in texts] == list(first)


def test_a_run_over_documents(command, tmp_path):
    """Trained, validated, sampled and resumed."""
    (tmp_path / "text.txt").write_text(re.sub(r"\n\n+", "\n\n", TEXT), "utf-8")
    run, arguments = tmp_path / "run", ("data.path=text.txt", r"data.document=\n\n", *TINY)
    result = command("train.py", *arguments, f"hydra.run.dir={run}", "trainer.max_steps=3",
                     cwd=tmp_path)  # fmt: skip
    assert result.code == 0, result.err
    assert "untrained: validation" in result.out and BOUNDARY not in result.out
    charset = load(run / "checkpoints" / "last.ckpt")["charrnn"]["charset"]
    assert charset["documents"] and BOUNDARY in charset["characters"]
    model = load_model(run)
    parts = [BOUNDARY + "def f():", BOUNDARY + "import os"]
    nats = model.score("".join(parts))
    assert nats[len(parts[0]) :] == pytest.approx(model.score(parts[1]), abs=1e-6)
    resumed = command("train.py", f"resume={run}", "trainer.max_steps=5", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
