"""Neurons: gates, what a text's characters are, how well units tell it, and the page of it all."""

import base64
import html.parser
import json
import re

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser
from helpers import TEXT
from hypothesis import given
from hypothesis import strategies as st

from charrnn import Charset, GRUEncode, GRUResize, checkpoint
from charrnn.analysis import page as neurons
from charrnn.analysis.properties import correlations, properties
from charrnn.api import LanguageModel
from charrnn.checkpoint import files as archive
from charrnn.data.charset import BOUNDARY
from charrnn.gru.reference import hard_sigmoid

NASTY = (
    '</script><script>alert(1)</script><!--<b>\u2028\u2029\x00\x1b[2J\u202e"{{data}}&amp;\ud800\r\n'
)


def make(characters=TEXT, unit="char", kind=GRUEncode, layers=2, hidden=5, documents=False, **more):
    torch.manual_seed(0)
    charset = Charset(characters, unit, documents=documents)
    model = kind(len(charset), hidden, layers, **more).eval()
    for p in model.parameters():
        torch.nn.init.uniform_(p, -1.5, 1.5)  # biases too
    model.boundary = charset.boundary
    return LanguageModel(model, charset)


def plain(model, text):
    """States and gates (L, H, T) by the equations, one character after the other."""
    net, gru = model.model, model.model.gru
    squash = torch.sigmoid if gru.gate == "sigmoid" else hard_sigmoid
    h = net.initial_state(1)[:, 0]
    found = []
    for index in model.charset.encode(text).tolist():
        if index == net.boundary:
            h = h * 0
        if isinstance(net, GRUEncode):
            x = torch.tanh(net.embed.weight[index] + net.embed.bias)
        else:
            x = torch.nn.functional.one_hot(torch.tensor(index), len(model.charset)).to(h)
        step = []
        for layer, (w_ih, w_hh, b_ih, b_hh) in enumerate(gru.all_weights):
            x_r, x_z, x_n = (w_ih @ x + b_ih).chunk(3)
            w_r, w_z, w_n = w_hh.chunk(3)
            b_r, b_z, b_n = b_hh.chunk(3)
            r = squash(x_r + w_r @ h[layer] + b_r)
            z = squash(x_z + w_z @ h[layer] + b_z)
            inner = w_n @ (r * h[layer]) + b_n if gru.reset == "before" else None
            inner = r * (w_n @ h[layer] + b_n) if inner is None else inner
            x = (1 - z) * torch.tanh(x_n + inner) + z * h[layer]
            step.append(torch.stack([x, r, z]))
        h = torch.stack([s[0] for s in step])
        found.append(torch.stack(step, 1))
    return torch.stack(found, -1).detach().numpy()


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_activations_and_gates_are_a_plain_loop_s(reset, gate, kind, unit):
    text = "añb a\n¿?"  # the last is not in the alphabet
    documents = unit == "char"
    text += BOUNDARY + "ab" if documents else ""
    model = make("abñ \n¿" if documents else map(chr, range(250)), unit, kind, 3, 5, documents,
                 reset=reset, gate=gate)  # fmt: skip
    model.model.double()
    wanted = plain(model, text)
    length = len(model.charset.preprocess(text))
    assert wanted.shape == (3, 3, 5, length)
    found = [model.activations(text), *model.gates(text)]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    assert [part.shape for part in model.gates("")] == [(3, 5, 0)] * 2


def test_what_the_characters_of_a_text_are():
    text = '  a "b c" (d\n\t e)\n\n"x\n\nz" f[a(b]c)\n'
    found = {name: "".join(f"{v:.0f}" for v in values) for name, values in properties(text).items()}
    assert found == {
        "position in line": "123456789101112" "01234" "0" "012" "0" "01234567891011" "0",
        "inside quotes": "00001111000000000000000000000000000",
        "inside brackets": "00000000001111110000000000000111100",
        "indentation": "122222222222" "01222" "0" "000" "0" "000000000000" "0",
        "end of line": "00000000000100001100110000000000010",
        "start of word": "00100101000100010000100100101010100",
    }  # fmt: skip


def told_by_the_beginning(text):
    """Position, indentation and end of line of the last character but one, in plain words."""
    read, after = text[:-1], text[-1]
    line = read[read.rfind("\n") + 1 :]
    return len(line), len(line) - len(line.lstrip()), after == "\n"


@given(st.text(alphabet='ab \n\t"(])[', min_size=1, max_size=40))
def test_what_is_known_of_a_character_does_not_hang_on_what_follows(text):
    whole = properties(text)
    assert all(values.shape == (len(text),) for values in whole.values())
    for end in range(1, len(text)):
        found = [whole[k][end - 1] for k in ("position in line", "indentation", "end of line")]
        assert tuple(found) == told_by_the_beginning(text[: end + 1])


def test_strengths_are_correlations():
    rng = np.random.default_rng(0)
    units, values = rng.normal(size=(7, 50)), rng.normal(size=(3, 50))
    values[1] = values[1] > 0.3
    wanted = np.corrcoef(units, values)[:7, 7:]
    np.testing.assert_allclose(correlations(units, values), wanted, atol=1e-12)
    found = correlations(
        np.stack([units[0], np.full(50, 0.7)]), np.stack([values[0], values[0] * 0])
    )
    assert (
        found[0, 0] == pytest.approx(wanted[0, 0]) and not found[1].any() and not found[:, 1].any()
    )
    assert correlations(np.zeros((2, 0)), np.zeros((3, 0))).shape == (2, 3)


def test_the_unit_that_is_the_property_ranks_first():
    model = make(layers=2, hidden=5)
    text = TEXT[:3000]
    activations = model.activations(text)
    known = properties(text)
    assert len(known) == 6 and all(values.std() > 0 for values in known.values())
    for number, (name, values) in enumerate(known.items()):
        made = activations.copy()
        made[1, 3] = 0.3 - values / (2 * values.max())
        measure = neurons.describe(model.model, model.charset, text, made)["measures"][number]
        assert measure["name"] == name
        strengths = np.array(measure["strengths"])
        assert np.abs(strengths).argmax() == 1 * 5 + 3 and strengths[8] == -1
    spread = neurons.describe(model.model, model.charset, text, activations)["measures"][-1]
    np.testing.assert_allclose(spread["strengths"], activations.std(2).ravel(), atol=6e-4)


def test_predictions_are_those_of_a_score():
    model, text = make(), TEXT[:1203]
    indices = model.charset.encode(text).astype(np.int64)
    likeliest, chances, actual = neurons.predictions(
        model.model, model.activations(text)[-1], indices
    )
    np.testing.assert_allclose(-np.log(actual), model.score(text), rtol=1e-4)
    assert likeliest.shape == chances.shape == (1203, 5)
    assert (np.diff(chances) <= 0).all() and (chances > 0).all()
    guessed = likeliest[:-1] == indices[1:, None]
    np.testing.assert_array_equal(chances[:-1][guessed], actual[guessed.any(1)])


class Elements(html.parser.HTMLParser):
    """The elements of a page, and the text of each script and of the title."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.now = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.now = tag

    def handle_data(self, text):
        if self.now in ("script", "title"):
            self.texts.append(text)
            self.now = None

    def handle_comment(self, text):
        self.tags.append(("comment", text))


def test_neither_a_text_nor_a_name_breaks_out_of_the_page():
    model = make(NASTY + "ab")
    page = neurons.page(
        model, NASTY + "zz", "</script><!--<script>\x1b", '"><img src=x onerror=alert(1)>'
    )
    harmless = neurons.page(model.model, model.charset, "ab" * len(NASTY), "a", "b")
    found, wanted = Elements(page), Elements(harmless)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in wanted.tags]
    assert "comment" not in dict(found.tags) and len(found.texts) == 4
    title, data, activations, script = found.texts
    assert title == 'Neurons of </script><!--<script>\\x1b along "><img src=x onerror=alert(1)>'
    assert script == wanted.texts[3]
    data = json.loads(data)
    shown = "".join(data["characters"])
    assert shown == NASTY.encode("unicode_escape").decode().replace(r"\n", "\n") + "zz"
    assert data["unknown"] == [len(NASTY), len(NASTY) + 1]
    assert data["title"] == title
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", page)
    page.encode("utf-8")
    values = np.frombuffer(base64.b64decode(activations), np.int8)
    wanted = model.activations(NASTY + "zz").ravel()
    np.testing.assert_allclose(values / 127, wanted, atol=0.51 / 127)


def test_the_page_asks_for_nothing():
    page = neurons.page(make().model, make().charset, "def", "a", "b")
    assert not re.search(r"https?:|//[a-z]|src=|href=|@import|url\(|fetch|XMLHttp", page)
    policy = next(
        a["content"] for _, a in Elements(page).tags if "content" in a and "http-equiv" in a
    )
    assert policy.startswith("default-src 'none'; ")


@pytest.mark.parametrize(("text", "shown"), [
    ("aé\n", ["a", r"\xc3", "é", "\n"]),
    (b"\xe9a\xff\n", [r"\xe9", "a", r"\xff", "\n"]),
    ("中\x00", [r"\xe4", r"\xb8", "中", r"\x00"]),
])  # fmt: skip
def test_bytes_are_shown_with_what_they_complete(text, shown):
    model = make(map(chr, range(255)), "byte")  # all but one
    page = neurons.describe(model.model, model.charset, text, model.activations(text))
    assert page["characters"] == shown and page["unit"] == "bytes"
    assert all(label.isprintable() or label in "\t\n" for label in page["labels"])


@pytest.fixture
def saved(tmp_path):
    """A checkpoint in a run's folder."""
    model = make()
    state = {checkpoint.PREFIX + name: value for name, value in model.model.state_dict().items()}
    settings = {"model": {"_target_": "charrnn.models.GRUEncode", "hidden_size": 5}}
    ours = {"format": 1, "settings": settings, "charset": model.charset.state_dict()}
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    archive.write({"charrnn": ours, "state_dict": state}, file)
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return tmp_path


def test_the_command_writes_a_page(saved, capsys):
    text = saved / "text.txt"
    neurons.main([str(saved / "run"), "--text", str(text), "--length", "300"])
    out = saved / "run" / "checkpoints" / "last.html"
    assert capsys.readouterr().out == f"{out}\n"
    assert "<title>Neurons of run along text.txt</title>" in out.read_text("utf-8")
    assert len(json.loads(Elements(out.read_text("utf-8")).texts[1])["characters"]) == 300
    neurons.main([str(saved / "run"), "--text", str(text), "--out", str(saved / "page.html")])
    data = json.loads(Elements((saved / "page.html").read_text("utf-8")).texts[1])
    assert "".join(data["characters"]) == TEXT[:10_000]


@pytest.mark.parametrize(("arguments", "said"), [
    (["run", "--text", "none.txt"], "none.txt: cannot be read"),
    (["run", "--text", "."], "cannot be read"),
    (["run", "--text", "empty.txt"], "is empty"),
    (["run", "--text", "text.txt", "--length", "0"], "at least 1"),
    (["text.txt", "--text", "text.txt"], "text.txt"),
    (["run", "--text", "text.txt", "--out", "no/page.html"], "No such file"),
    (["run", "--text", "text.txt", "--out", "./text.txt"], "--out"),
    (["run", "--text", "text.txt", "--out", "run/checkpoints/last.ckpt"], "--out"),
])  # fmt: skip
def test_what_is_wrong_is_a_line(saved, arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(saved)
    (saved / "empty.txt").write_text("")
    before = (saved / "run" / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(SystemExit) as end:
        neurons.main(arguments)
    written = capsys.readouterr()
    assert end.value.code == 2 and said in written.err
    assert written.err.startswith("error: ") and written.err.count("\n") == 1
    assert (saved / "text.txt").read_text("utf-8") == TEXT
    assert (saved / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_page_too_large_to_open_is_refused(monkeypatch):
    monkeypatch.setattr(neurons, "LARGEST", 10 * 30 - 1)
    neurons.page(make().model, make().charset, "a" * 29, "a", "b")
    with pytest.raises(neurons.InputError, match="give at most --length 29"):
        neurons.page(make().model, make().charset, "a" * 30, "a", "b")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; the page is checked above without")
def test_a_unit_is_picked_in_a_browser(tmp_path):
    model, text = make(NASTY + TEXT), NASTY + TEXT[:700] + "¿"
    file = tmp_path / "page.html"
    file.write_text(
        neurons.page(
            model.model,
            model.charset,
            text,
            "</title></script><!--",
            "<img src=x onerror=alert(1)>",
        ),
        "utf-8",
    )
    wanted = model.activations(text).reshape(10, -1)
    browser = Browser(tmp_path)
    try:
        browser.open(file, "#unit=0.3&measure=standard deviation")
        check_colours(browser, wanted[3])
        assert browser.evaluate("document.title").startswith(
            "Neurons of </title></script><!-- along <img"
        )
        assert (
            browser.evaluate("find('text').textContent")
            .replace("↵", "\n")
            .startswith(NASTY.encode("unicode_escape").decode().replace(r"\n", "\n") + TEXT[:100])
        )
        browser.click("#unit-1\\.2")
        check_colours(browser, wanted[7])
        assert browser.evaluate("location.hash").startswith("#unit=1.2&")
        order = np.argsort(-wanted.std(1).round(3), kind="stable").tolist()
        below = (order + order[-1:])[order.index(7) + 1]
        browser.press("ArrowDown")
        check_colours(browser, wanted[below])
        browser.press("ArrowUp")
        check_colours(browser, wanted[order[max(0, order.index(below) - 1)]])
        listed = browser.evaluate("[...document.querySelectorAll('.unit')].map(o => o.unit)")
        assert listed == order
        place = len(NASTY) + 3
        browser.click("#text .row:nth-child(2) span:nth-child(4)")
        assert browser.evaluate("state.place") == place
        nexts = browser.evaluate("[...document.querySelectorAll('.next')].map(r => r.innerText)")
        assert 5 <= len(nexts) <= 6 and sum("✓" in line for line in nexts) == 1
        # A measure that this text has: the unit that tells it best is chosen.
        browser.evaluate("find('measure').value = 0,"
                         "find('measure').dispatchEvent(new Event('change'))")  # fmt: skip
        strengths = correlations(wanted, properties(text)["position in line"][None])[:, 0]
        check_colours(browser, wanted[np.abs(strengths).argmax()])
        assert not browser.complaints()
        assert [url.partition("#")[0] for url in browser.requests()] in (
            [file.as_uri()], ["about:blank", file.as_uri()]
        )  # fmt: skip
    finally:
        browser.close()


def check_colours(browser, activations):
    """Each character has the colour of its activation: blue below 0, orange above."""
    colours = browser.evaluate("spans.map(s => getComputedStyle(s).backgroundColor)")
    found = np.array([re.findall(r"\d+", colour)[:3] for colour in colours], int)
    levels = np.rint(activations * 127)
    palette = np.array(browser.evaluate("colours"))
    np.testing.assert_array_equal(found, palette[levels.astype(int) + 127])
    assert len(np.unique(levels)) > 5
    assert (found[levels < -20][:, 0] < found[levels < -20][:, 2]).all()
    assert (found[levels > 20][:, 0] > found[levels > 20][:, 2]).all()
