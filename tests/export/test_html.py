"""The page of a model without a browser: its parts, what the bits cost, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from export_models import saved
from helpers import TEXT, assert_one_line, listing
from pages import NASTY, Elements
from small_models import saved_model

from charrnn import GRUEncode, GRUResize, checkpoint
from charrnn.evaluation import score
from charrnn.export import export, html
from charrnn.export.quantize import quantize, quantize_model
from charrnn.models import LSTM


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_quantized_weights_are_close(bits):
    torch.manual_seed(0)
    weight = torch.randn(7, 5) * torch.logspace(-3, 1, 7)[:, None]
    data, values = quantize(weight, bits)
    assert len(data) == {32: 140, 16: 70, 8: 28 + 35}[bits]
    error = {32: 0, 16: 2**-11, 8: 1 / 254}[bits] * weight.abs().amax(1, keepdim=True)
    assert ((values - weight).abs() <= error * 1.001).all()
    assert quantize(weight[0], bits)[1].equal(weight[0])  # vectors stay
    assert quantize(torch.zeros(2, 2), bits)[1].eq(0).all()


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_what_the_bits_cost_is_measured(tmp_path, bits):
    model, charset, file = saved(tmp_path, GRUResize, "before", "sigmoid")
    notes = []
    out = export(file, "html", tmp_path / "page.html", bits=bits, tell=notes.append)
    assert f"{bits} bits cost" in notes[0] and "a text of its own" in notes[0]
    before, after, _ = html.measure(
        model, quantize_model(model, bits)[2], charset, checkpoint.read(file)
    )
    assert f"{round(after - before, 4) + 0.0:+.4f} bpc" in notes[0] and (bits == 32) == (
        before == after
    )
    page = Elements(out.read_text("utf-8"))
    description = json.loads(page.texts[1])
    assert description["reset"] == "before" and not description["encode"]
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script"] * 4
    assert str(tmp_path) not in out.read_text("utf-8")


def test_the_cost_is_that_of_the_validation_text(trained, tmp_path):
    notes = []
    export(trained, "html", tmp_path / "page.html", tell=notes.append)
    assert "characters of its validation text" in notes[0]
    saved = checkpoint.read(checkpoint.find_checkpoint(trained))
    losses = [loss for windows, loss in saved["charrnn"]["validations"] if windows]
    assert f"({losses[-1] / math.log(2):.2f}" in notes[0]  # at least to two digits


def test_names_cannot_break_out(tmp_path):
    _, _, content = saved_model(GRUEncode, NASTY + TEXT[:100])
    content["charrnn"]["settings"]["data"] = {"path": f"/home/me/{{{{weights}}}}{NASTY[:60]}"}
    checkpoint.save(content, tmp_path / "model.ckpt")
    page = Elements(export(tmp_path / "model.ckpt", "html").read_text("utf-8"))
    assert [tag for tag, _ in page.tags if tag in ("script", "comment", "b")] == ["script"] * 4
    assert json.loads(page.texts[1])["title"].startswith("A model of script>")


def test_what_has_no_page(tmp_path, invoke, monkeypatch):
    _, _, content = saved_model(LSTM, TEXT)
    checkpoint.save(content, tmp_path / "lstm.ckpt")
    saved(tmp_path, GRUEncode, "after", "sigmoid")
    before = listing(tmp_path)
    monkeypatch.setattr(html, "MAX_BYTES", 2000)
    for command, words in (
        ("lstm.ckpt --to html", ["LSTM has no such page"]),
        ("model.ckpt --to html --bits 4", ["--bits", "32, 16, 8"]),
        ("model.ckpt --to torch --bits 8", ["bits=8", "to=html"]),
        ("model.ckpt --to html --bits 32", ["would have", "MB with --bits 16", "MB with --bits 8"]),
    ):
        assert_one_line(invoke("export", *command.split(), cwd=tmp_path), words)
    assert listing(tmp_path) == before
    monkeypatch.undo()
    done = invoke("export", *"model.ckpt --to html --bits 8".split(), cwd=tmp_path)
    assert done.code == 0 and "model.page.html: 0.0" in done.out and "8 bits cost" in done.out


def test_the_scores_that_a_browser_is_compared_with(tmp_path):
    """A rounded model is the one whose values are in the page, not the checkpoint's."""
    model, charset, _ = saved(tmp_path, GRUEncode, "after", "hard_sigmoid")
    rounded = quantize_model(model, 8)[2]
    indices = torch.from_numpy(charset.encode(" ab" * 20).astype(np.int64))
    assert not np.allclose(score(rounded, indices), score(model, indices), rtol=1e-6)
    assert all(p.dtype == torch.float32 for p in rounded.parameters())
