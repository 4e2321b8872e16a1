"""The neurons page: its data, its file, and that no text breaks out of it."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from helpers import TEXT
from pages import NASTY, Elements
from small_models import random_model as make
from small_models import saved_model

from charrnn import GRUEncode, InputError
from charrnn.analysis import page
from charrnn.analysis.page import render_page, write_page
from charrnn.analysis.page_data import page_data, predict
from charrnn.checkpoint import save
from charrnn.models import LSTM
from charrnn.models.char_model import CharModel


def test_predictions_match_scores():
    model, text = make(), TEXT[:1203]
    indices = model.charset.encode(text).astype(np.int64)
    likeliest, probabilities, actual = predict(model.model, indices, model.activations(text))
    np.testing.assert_allclose(-np.log(actual), model.score(text), rtol=1e-4)
    assert likeliest.shape == probabilities.shape == (1203, 5)
    assert (np.diff(probabilities) <= 0).all() and (probabilities > 0).all()
    predicted = likeliest[:-1] == indices[1:, None]
    np.testing.assert_array_equal(probabilities[:-1][predicted], actual[predicted.any(1)])


def test_neither_texts_nor_names_escape_into_the_markup():
    model = make(NASTY + "ab")
    rendered = render_page(
        model.model,
        model.charset,
        NASTY + "zz",
        "</script><!--<script>\x1b",
        '"><img src=x onerror=alert(1)>',
    )
    harmless = render_page(model.model, model.charset, "ab" * len(NASTY), "a", "b")
    found, expected = Elements(rendered), Elements(harmless)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in expected.tags]
    assert "comment" not in dict(found.tags) and len(found.texts) == 6
    title, data, activations, reset, update, script = found.texts
    assert title == 'Neurons of </script><!--<script>\\x1b along "><img src=x onerror=alert(1)>'
    assert script == expected.texts[5]
    assert json.loads(data)["title"] == title
    (data,) = json.loads(data)["models"]
    shown = "".join(data["characters"])
    assert shown == NASTY.encode("unicode_escape").decode().replace(r"\n", "\n") + "zz"
    assert data["unknown"] == [len(NASTY), len(NASTY) + 1]
    assert data["name"] == "</script><!--<script>\\x1b" and len(data["signals"]) == 3
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", rendered)
    rendered.encode("utf-8")
    values = np.frombuffer(base64.b64decode(activations), np.int8)
    expected = model.activations(NASTY + "zz").ravel()
    np.testing.assert_allclose(values / 127, expected, atol=0.51 / 127)
    for shown, gate in zip((reset, update), model.gates(NASTY + "zz")):
        values = np.frombuffer(base64.b64decode(shown), np.int8)
        np.testing.assert_allclose(values / 127, gate.ravel(), atol=0.51 / 127)


def test_the_page_needs_no_network():
    rendered = render_page(make().model, make().charset, "def", "a", "b")
    address = r"https?:|(?<![\w+/-])//[a-z]"  # and no base64
    assert not re.search(address + r"|src=|href=|@import|url\(|fetch|XMLHttp", rendered)
    policy = next(
        a["content"] for _, a in Elements(rendered).tags if "content" in a and "http-equiv" in a
    )
    assert policy.startswith("default-src 'none'; ")


@pytest.mark.parametrize(("text", "shown"), [
    ("aé\n", ["a", r"\xc3", "é", "\n"]),
    (b"\xe9a\xff\n", [r"\xe9", "a", r"\xff", "\n"]),
    ("中\x00", [r"\xe4", r"\xb8", "中", r"\x00"]),
])  # fmt: skip
def test_bytes_are_shown_as_the_characters_they_complete(text, shown):
    model = make(map(chr, range(255)), "byte")  # all bytes but one
    data = page_data(model.model, model.charset, text, model.activations(text))
    assert data["characters"] == shown and data["unit"] == "bytes"
    assert all(label.isprintable() or label in "\t\n" for label in data["labels"])


@pytest.fixture
def saved(tmp_path):
    """A checkpoint in a run's folder, and a text."""
    save(saved_model(GRUEncode, TEXT)[2], tmp_path / "run" / "checkpoints" / "last.ckpt")
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return tmp_path


def shown_text(file):
    return "".join(
        json.loads(Elements(file.read_text("utf-8")).texts[1])["models"][0]["characters"]
    )


def test_a_page_is_written_beside_the_checkpoint(saved):
    out = write_page(saved / "run", saved / "text.txt", length=300)
    assert out == saved / "run" / "checkpoints" / "last.html"
    assert "<title>Neurons of run along text.txt</title>" in out.read_text("utf-8")
    assert shown_text(out) == TEXT[:300]
    out = write_page(saved / "run", saved / "text.txt", saved / "page.html")
    assert out == saved / "page.html" and shown_text(out) == TEXT[:10_000]


@pytest.mark.parametrize(("arguments", "message"), [
    (("run", "none.txt"), "none.txt: no such file"),
    (("run", "."), "is a folder"),
    (("run", "run/checkpoints/last.ckpt"), "last.ckpt: is not text in UTF-8"),
    (("run", "empty.txt"), "is empty"),
    (("run", "text.txt", None, 0), "at least 1"),
    (("text.txt", "text.txt"), "text.txt"),
    (("run", "text.txt", "no/page.html"), "No such file"),
    (("run", "text.txt", "./text.txt"), "--out"),
    (("run", "text.txt", "run/checkpoints/last.ckpt"), "--out"),
])  # fmt: skip
def test_bad_arguments_are_errors_and_change_nothing(saved, arguments, message, monkeypatch):
    monkeypatch.chdir(saved)
    (saved / "empty.txt").write_text("")
    before = (saved / "run" / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises((InputError, OSError), match=message):
        write_page(*arguments)
    assert (saved / "text.txt").read_text("utf-8") == TEXT
    assert (saved / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_page_too_large_to_open_is_refused(monkeypatch):
    monkeypatch.setattr(page, "MAX_ACTIVATIONS", 10 * 30 - 1)
    render_page(make().model, make().charset, "a" * 29, "a", "b")
    monkeypatch.setattr(page, "MAX_WITH_GATES", 10 * 20)
    rendered = render_page(make().model, make().charset, "a" * 21, "a", "b")
    assert len(Elements(rendered).texts) == 4  # without gates
    with pytest.raises(InputError, match="give at most --length 14"):
        other = make().model, make().charset, "c"
        render_page(make().model, make().charset, "a" * 15, "a", "b", other)
    with pytest.raises(InputError, match="give at most --length 29"):
        render_page(make().model, make().charset, "a" * 30, "a", "b")


def test_two_models_side_by_side(saved, invoke):
    save(saved_model(LSTM, TEXT, 7, 1)[2], saved / "other.ckpt")
    save(saved_model(GRUEncode, TEXT, unit="byte")[2], saved / "bytes.ckpt")
    done = invoke("neurons", "run", "--text", "text.txt", "--length", 40, "--with", "other.ckpt",
                  "--out", "two.html", cwd=saved)  # fmt: skip
    assert done.code == 0, done
    texts = Elements((saved / "two.html").read_text("utf-8")).texts
    assert texts[0] == "Neurons of run and other.ckpt along text.txt"
    models = json.loads(texts[1])["models"]
    assert [len(model["signals"]) for model in models] == [3, 1]
    assert [len(base64.b64decode(text)) for text in texts[2:6]] == [15 * 40] * 3 + [7 * 40]
    write_page(saved / "run", saved / "text.txt", saved / "two.html", 9, other=saved / "run")
    assert "Neurons of run/last and run/last along" in (saved / "two.html").read_text("utf-8")
    for one, two in (("run", "bytes.ckpt"), ("bytes.ckpt", "run")):
        with pytest.raises(InputError, match="--with: that model reads the text differently"):
            write_page(saved / one, saved / "text.txt", length=9, other=saved / two)


def test_activations_that_are_not_finite(saved):
    content = saved_model(GRUEncode, TEXT)[2]
    content["state_dict"]["model.gru.bias_hh_l1"][0] = float("nan")
    save(content, saved / "nan.ckpt")
    with pytest.raises(InputError, match="not finite; take an earlier checkpoint"):
        write_page(saved / "nan.ckpt", saved / "text.txt", length=9)
    assert not (saved / "nan.html").exists()


def test_one_pass_of_the_model_is_enough(monkeypatch):
    """Of our own models; any other one is run as it is."""
    model, text = make(), TEXT[:1100]
    indices, activations = model.charset.encode(text).astype(np.int64), model.activations(text)
    quick = predict(model.model, indices, activations)
    monkeypatch.setattr(type(model.model), "forward", lambda *a: CharModel.forward(*a))
    for one, other in zip(quick, predict(model.model, indices, activations)):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_unlikely_characters_keep_their_surprisal():
    model, text = make(), "ab" * 20
    with torch.no_grad():
        model.model.decoder.bias[int(model.charset.encode("b")[0])] -= 20
    data = page_data(model.model, model.charset, text, model.activations(text))
    np.testing.assert_allclose(-np.log(data["actual"]), model.score(text), atol=1e-4)


def test_a_variant_with_another_output_is_run_as_it_is():
    class Residual(GRUEncode):
        def outputs(self, inputs, state):
            output, state = super().outputs(inputs, state)
            return output + self.embed.weight[inputs], state

    torch.manual_seed(0)
    model = Residual(7, hidden_size=6)
    indices, state = np.arange(7), model.initial_state(1)
    activations = model.activations(torch.from_numpy(indices)[:, None], state)[:, :, 0].mT
    _, _, actual = predict(model, indices, activations.detach().numpy())
    p = model(torch.from_numpy(indices)[:, None], state)[0][:, 0].softmax(1)
    np.testing.assert_allclose(actual, p.diagonal(1).detach(), rtol=1e-5)
