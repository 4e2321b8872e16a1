"""The lines of interactive=true, without a terminal."""

import pytest

import charrnn
from charrnn.cli.interactive import Shell
from charrnn.errors import InputError, escape_text
from charrnn.generation.decoding import Decoding


@pytest.fixture(scope="module")
def model(trained):
    return charrnn.load(trained)


@pytest.fixture
def shell(model):
    text = {"prompt": "ab", "length": 20, "seed": 1, "unknown": "error"}
    return Shell(model.model, model.charset, text, vars(Decoding()), escape_text)


def test_lines(shell, model, capsys, tmp_path):
    def answer(line):
        shell.answer(line)
        return capsys.readouterr().out

    def written(session, **settings):
        text = escape_text(session.generate(20, **settings))
        return text if text.endswith("\n") else text + "\n"

    session = model.session(seed=1).feed("ab")
    assert answer("c\\n") == written(session.feed("c\n"))
    assert answer("//x") == written(session.feed("/x"))
    kept = session.fork()
    assert answer(f"/save {tmp_path / 's'}") == answer("/set temperature 0.5") == ""
    assert answer("") == written(session, temperature=0.5)
    assert answer("/undo") == ""
    assert answer("d") == written(kept.fork().feed("d"), temperature=0.5)
    assert (
        answer(f"/load {tmp_path / 's'}") == answer("/set stop \\n") == answer("/set top_k 2") == ""
    )
    settings = {"temperature": 0.5, "stop": "\n", "top_k": 2}
    assert answer("d") == written(kept.fork().feed("d"), **settings)
    assert answer("/set stop null") == answer("/set seed 7") == answer("/reset") == ""
    assert answer("d") == written(model.session(seed=7).feed("d"), temperature=0.5, top_k=2)
    assert "temperature 0.5\n" in answer("/set") and "/undo" in answer("/help")
    answer("/undo")
    before = shell.session, shell.settings
    for bad, message in [
        ("/undo", "nothing to undo"), ("/load", "give a file"), ("/load none", "no session there"),
        ("/save", "give a file"), ("/set heat 3", "no such setting"), ("☃", "does not know"),
        ("/set length 1.5", "length="), ("/set temperature x", "temperature="),
        ("/set allow ☃", "does not know"), ("/set beam 3", "temperature=0.5 must be 1 with beam"),
        ("/st", "no such command"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            answer(bad)
        assert capsys.readouterr().out == ""
    assert (shell.session, shell.settings) == before


@pytest.mark.parametrize("form", [escape_text, str], ids=["shown", "raw"])
def test_control_characters(form, capsys):
    """Those of a text go through the form that those of a sample do."""
    charset = charrnn.Charset("\x1b")
    model = charrnn.GRUEncode(len(charset), 2, 1)
    text = {"prompt": "", "length": 3, "seed": 1, "unknown": "error"}
    settings = vars(Decoding(allow="\x1b"))
    Shell(model, charset, text, settings, form).answer("")
    assert capsys.readouterr().out == form("\x1b" * 3) + "\n"


def test_another_text_after_undo_without_a_seed(model, capsys):
    text = {"prompt": "", "length": 40, "seed": None, "unknown": "error"}
    shell = Shell(model.model, model.charset, text, vars(Decoding(temperature=2.0)), str)
    texts = set()
    for _ in range(3):
        shell.answer("def ")
        texts.add(capsys.readouterr().out)
        shell.answer("/undo")
    assert len(texts) == 3
