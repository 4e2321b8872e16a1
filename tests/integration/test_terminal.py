"""At a terminal: sample.py interactive=true, and a run whose terminal goes away."""

import os
import pty
import re
import select
import signal
import time

import pytest
from helpers import ROOT, TINY, load

import charrnn
from charrnn.errors import escape_text


@pytest.fixture(scope="module")
def model(trained):
    return charrnn.load(trained)


class Terminal:
    """The user's side of a pseudo-terminal."""

    def __init__(self):
        self.master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        self.slave, self.seen = slave, ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> str:
        """The output up to a pattern, which comes within 20 seconds."""
        end = time.monotonic() + 20
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            assert ready, f"{pattern!r} not in {self.seen!r}"
            self.seen += os.read(self.master, 10_000).decode("utf-8", "replace")
        output, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return output.replace("\r\n", "\n")

    def rest(self) -> str:
        """All output until nothing more comes for a second, which is within 20."""
        end = time.monotonic() + 20
        while select.select([self.master], [], [], 1)[0]:
            assert time.monotonic() < end
            self.seen += os.read(self.master, 10_000).decode("utf-8", "replace")
        output, self.seen = self.seen, ""
        return output.replace("\r\n", "\n")

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_a_session_at_a_terminal(command, trained, model, tmp_path, terminal):
    argv = ["sample.py", f"checkpoint={trained}", "interactive=true", "length=30", "seed=1"]
    pid = command.ask({
        "argv": [str(ROOT / argv[0]), *argv[1:]], "cwd": str(tmp_path), "tty": terminal.name,
        "env": {"XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "dumb"},
    })  # fmt: skip
    terminal.until("> ")
    terminal.type("import \n")
    session = model.session(seed=1).feed("import ")
    text = session.generate(30)
    assert terminal.until("\n> ") == f"import \n{escape_text(text)}\n> ".replace("\n\n> ", "\n> ")
    # What is wrong is one line, and changes nothing.
    for line, message in [("/set top_p 3", "error: top_p=3 must be"), ("/x", "error: /x: no such"),
                          ("a☃", "error: prompt: the model does not know '☃'")]:  # fmt: skip
        terminal.type(f"{line}\n")
        terminal.until("\n")  # the line itself
        assert re.fullmatch(rf"{re.escape(message)}[^\n]*\n> ", terminal.until("> "))
    terminal.type("\n")  # goes on
    text = escape_text(session.generate(30))
    assert terminal.until("\n> ").removesuffix("\n> ") == "\n" + text.removesuffix("\n")
    # Ctrl-C ends the text and not the shell, and what was shown has been read.
    terminal.type("/set length 1000000000\n")
    terminal.until("> ")
    terminal.type("x = \n")
    terminal.until("x = \n?\r?\n")
    terminal.until(r"(?s).{800}")  # a character takes at most four on the screen
    terminal.type("\x03")
    assert terminal.rest().endswith("\n> ")
    terminal.type("/save kept\n")
    terminal.until("> ")
    kept = model.session(tmp_path / "kept").context.count
    assert kept > 7 + 30 + 30 + 4 + 200
    terminal.type("/set length 5\n")
    terminal.until("> ")
    terminal.type("one line ")
    terminal.until("one line ")
    time.sleep(0.1)  # Python's input() misses a signal right before it waits, until the next key
    terminal.type("\x03")  # a line that is not sent
    terminal.until("> ")
    terminal.type("\x1b[A\x1b[A\n")  # the line before the last one: history
    assert "/save kept" in terminal.until("\n> ")
    terminal.type("\x04")
    assert command.ask({"wait": pid}) == 0
    history = (tmp_path / "state" / "charrnn" / "history").read_text("utf-8").splitlines()
    assert history[:2] == ["import ", "/set top_p 3"]


def test_a_run_whose_terminal_goes_away_saves(command, text_file, tmp_path):
    """With SIGHUP, and with output that cannot be written from then on."""
    terminal, run = Terminal(), tmp_path / "run"
    arguments = [f"data.path={text_file}", *TINY, "hydra.run.dir=run", "callbacks.samples=null",
                 "trainer.max_epochs=100000", "trainer.limit_train_batches=3",
                 "data.valid_size=50"]  # fmt: skip
    pid = command.ask({
        "argv": [str(ROOT / "train.py"), *arguments], "cwd": str(tmp_path), "tty": terminal.name,
        "env": {"TERM": "dumb"},
    })  # fmt: skip
    terminal.until("window 9, ")
    terminal.close()
    assert command.ask({"wait": pid}) == 128 + signal.SIGHUP
    assert load(run / "checkpoints" / "last.ckpt")["charrnn"]["windows"] >= 6
