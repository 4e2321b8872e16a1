"""sample.py interactive=true at a terminal, and what its lines do."""

import os
import pty
import re
import select
import time

import pytest
from helpers import ROOT

import charrnn
from charrnn.api import LanguageModel
from charrnn.cli.interactive import Shell
from charrnn.errors import InputError, escape_control
from charrnn.generation.decoding import Decoding


@pytest.fixture(scope="module")
def model(trained):
    return charrnn.load(trained)


class Terminal:
    """The person's side of a pseudo-terminal."""

    def __init__(self):
        self.master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        self.slave, self.seen = slave, ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> str:
        """What is shown up to a pattern, which comes within 20 seconds."""
        end = time.monotonic() + 20
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            assert ready, f"{pattern!r} not in {self.seen!r}"
            self.seen += os.read(self.master, 10_000).decode("utf-8", "replace")
        shown, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return shown.replace("\r\n", "\n")

    def rest(self) -> str:
        """All that is shown until nothing more comes for a second, which is within 20."""
        end = time.monotonic() + 20
        while select.select([self.master], [], [], 1)[0]:
            assert time.monotonic() < end
            self.seen += os.read(self.master, 10_000).decode("utf-8", "replace")
        shown, self.seen = self.seen, ""
        return shown.replace("\r\n", "\n")

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_a_person_at_a_terminal(command, trained, model, tmp_path, terminal):
    argv = ["sample.py", f"checkpoint={trained}", "interactive=true", "length=30", "seed=1"]
    pid = command.ask({
        "argv": [str(ROOT / argv[0]), *argv[1:]], "cwd": str(tmp_path), "tty": terminal.name,
        "env": {"XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "dumb"},
    })  # fmt: skip
    terminal.until("> ")
    terminal.type("import \n")
    session = model.session(seed=1).feed("import ")
    text = session.generate(30)
    assert terminal.until("\n> ") == f"import \n{escape_control(text)}\n> ".replace(
        "\n\n> ", "\n> "
    )
    # What is wrong is one line, and changes nothing.
    for line, message in [("/set top_p 3", "error: top_p=3 must be"), ("/x", "error: /x: no such"),
                          ("a☃", "error: prompt: the model does not know '☃'")]:  # fmt: skip
        terminal.type(f"{line}\n")
        terminal.until("\n")  # the line itself
        assert re.fullmatch(rf"{re.escape(message)}[^\n]*\n> ", terminal.until("> "))
    terminal.type("\n")  # goes on
    text = escape_control(session.generate(30))
    assert terminal.until("\n> ").removesuffix("\n> ") == "\n" + text.removesuffix("\n")
    # Ctrl-C ends the text and not the shell, and what was shown has been read.
    terminal.type("/set length 1000000000\n")
    terminal.until("> ")
    terminal.type("x = \n")
    terminal.until("x = \n?\r?\n")
    terminal.until(r"(?s).{200}")
    terminal.type("\x03")
    assert terminal.rest().endswith("\n> ")
    terminal.type("/save kept\n")
    terminal.until("> ")
    kept = model.session(tmp_path / "kept").context.count
    assert kept > 7 + 30 + 30 + 4 + 200
    terminal.type("/set length 5\n")
    terminal.until("> ")
    terminal.type("one line \x03")  # a line that is not sent
    terminal.until("> ")
    terminal.type("\x1b[A\x1b[A\n")  # the line before the last one: history
    assert "/save kept" in terminal.until("\n> ")
    terminal.type("\x04")
    assert command.ask({"wait": pid}) == 0
    history = (tmp_path / "state" / "charrnn" / "history").read_text("utf-8").splitlines()
    assert history[:2] == ["import ", "/set top_p 3"]


@pytest.fixture
def shell(model):
    text = {"prompt": "ab", "length": 20, "seed": 1, "unknown": "error"}
    return Shell(model, text, vars(Decoding()), escape_control)


def test_lines(shell, model, capsys, tmp_path):
    def shown(line):
        shell.answer(line)
        return capsys.readouterr().out

    def written(session, **settings):
        text = escape_control(session.generate(20, **settings))
        return text if text.endswith("\n") else text + "\n"

    session = model.session(seed=1).feed("ab")
    assert shown("c\\n") == written(session.feed("c\n"))
    assert shown("//x") == written(session.feed("/x"))
    kept = session.fork()
    assert shown(f"/save {tmp_path / 's'}") == shown("/set temperature 0.5") == ""
    assert shown("") == written(session, temperature=0.5)
    assert shown("/undo") == ""
    assert shown("d") == written(kept.fork().feed("d"), temperature=0.5)
    assert shown(f"/load {tmp_path / 's'}") == shown("/set stop \\n") == shown("/set top_k 2") == ""
    settings = {"temperature": 0.5, "stop": "\n", "top_k": 2}
    assert shown("d") == written(kept.fork().feed("d"), **settings)
    assert shown("/set stop null") == shown("/set seed 7") == shown("/reset") == ""
    assert shown("d") == written(model.session(seed=7).feed("d"), temperature=0.5, top_k=2)
    assert "temperature 0.5\n" in shown("/set") and "/undo" in shown("/help")
    shown("/undo")
    before = shell.session, shell.settings
    for bad, message in [
        ("/undo", "nothing to undo"), ("/load", "give a file"), ("/load none", "no session there"),
        ("/save", "give a file"), ("/set heat 3", "no such setting"), ("☃", "does not know"),
        ("/set length 1.5", "length="), ("/set temperature x", "temperature="),
        ("/set allow ☃", "does not know"), ("/set beam 3", "temperature=0.5 must be 1 with beam"),
        ("/st", "no such command"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            shown(bad)
        assert capsys.readouterr().out == ""
    assert (shell.session, shell.settings) == before


@pytest.mark.parametrize("form", [escape_control, str], ids=["shown", "raw"])
def test_control_characters(form, capsys):
    """Those of a text go through the form that those of a sample do."""
    charset = charrnn.Charset("\x1b")
    model = charrnn.GRUEncode(len(charset), 2, 1)
    text = {"prompt": "", "length": 3, "seed": 1, "unknown": "error"}
    settings = vars(Decoding(allow="\x1b"))
    Shell(LanguageModel(model, charset), text, settings, form).answer("")
    assert capsys.readouterr().out == form("\x1b" * 3) + "\n"


def test_another_text_after_undo_without_a_seed(model, capsys):
    text = {"prompt": "", "length": 40, "seed": None, "unknown": "error"}
    shell = Shell(model, text, vars(Decoding(temperature=2.0)), str)
    texts = set()
    for _ in range(3):
        shell.answer("def ")
        texts.add(capsys.readouterr().out)
        shell.answer("/undo")
    assert len(texts) == 3
