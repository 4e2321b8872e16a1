"""A prompt at a terminal: the model reads what is typed, and continues it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from torch import nn

from charrnn.data.charset import Charset
from charrnn.data.files import user_path
from charrnn.data.text import unescape as unescape_text
from charrnn.errors import InputError, escape_control, format_value
from charrnn.generation.decoding import REGEX, Decoding
from charrnn.generation.generate import check_length, check_seed
from charrnn.generation.session import Session

HELP = r"""What you type is read as it stands (\n is a newline), and the model goes on from there;
An empty line lets it go on. Ctrl-C stops a text, Ctrl-D ends.
  /set                    the settings
  /set temperature 0.8    change one; null where it has no value
  /undo                   as before what was typed and written last
  /reset                  as if nothing had been read
  /save FILE, /load FILE  what the model has read, as its state
  /quit
  //                      a text that begins with /"""


def unescape(value: str | list[str] | None) -> str | list[str] | None:
    r"""A text or a list of them as typed in one line: \n is a newline, \t a tab."""
    if isinstance(value, list):
        return [unescape(part) for part in value]
    if value is None or value.startswith(REGEX):  # which knows both
        return value
    return unescape_text(value)


class Shell:
    """Reads lines from standard input, and writes what follows to standard output.

    Args:
        text: prompt, length, seed and unknown, as ``generation.generate_texts`` takes them.
        settings: those of :class:`charrnn.generation.decoding.Decoding`.
        form: applied to a text before it is printed.
    """

    def __init__(
        self,
        model: nn.Module,
        charset: Charset,
        text: dict,
        settings: dict,
        form: Callable[[str], str],
    ):
        self.model, self.charset, self.form = model, charset, form
        self.unknown = text["unknown"]
        self.settings = {"length": text["length"], "seed": text["seed"]} | settings
        self.check(self.settings)
        self.session = Session(model, charset, text["seed"]).feed(text["prompt"], self.unknown)
        self.before: list[Session] = []

    def check(self, settings: dict) -> None:
        """Raise InputError unless a text can be made with settings."""
        decoding = dict(settings)
        check_length(decoding.pop("length"))
        check_seed(decoding.pop("seed"))
        Decoding(**decoding).allowed_mask(self.charset)

    def run(self) -> None:
        """Answer lines until the user ends it."""
        if sys.stdin is None:
            raise InputError("interactive=true: standard input is closed; there is nothing to read")
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        with history():
            while True:
                try:
                    line = input("> " if sys.stdin.isatty() else "")
                    if line.strip() == "/quit":
                        return
                    self.answer(line)
                except EOFError:  # Ctrl-D, or the end of a file
                    return print()
                except KeyboardInterrupt:
                    print(flush=True)
                except (InputError, OSError) as error:
                    print(f"error: {escape_control(str(error))}", flush=True)

    def answer(self, line: str) -> None:
        """Do what a line says."""
        if line.startswith("/") and not line.startswith("//"):
            return self.command(*line[1:].strip().partition(" ")[::2])
        session = self.session.fork().feed(unescape(line.removeprefix("/")), self.unknown)
        self.before.append(self.session)
        self.session = session
        settings = {key: value for key, value in self.settings.items() if key != "seed"}
        text = ""
        try:
            # Closed at once, so that the session has read what was written when Ctrl-C ends it.
            with contextlib.closing(session.stream(**settings)) as stream:
                for text in stream:
                    print(self.form(text), end="", flush=True)
        finally:
            if text != "\n":
                print(flush=True)

    def command(self, name: str, argument: str) -> None:
        """Do what a line that begins with a slash says."""
        argument = argument.strip()
        if name == "help":
            print(HELP)
        elif name == "set":
            self.set(*argument.partition(" ")[::2])
        elif name == "reset":
            self.begin(Session(self.model, self.charset, self.settings["seed"]))
        elif name == "undo":
            if not self.before:
                raise InputError("nothing to undo")
            # Of another seed where none was given, so that another text comes.
            seed = self.settings["seed"]
            self.session = self.before.pop().fork(check_seed(seed))
        elif name in ("save", "load") and not argument:
            raise InputError(f"/{name}: give a file")
        elif name == "save":
            self.session.save(user_path(argument))
        elif name == "load":
            session = Session(self.model, self.charset)
            self.begin(session.load(argument).fork())
        else:
            raise InputError(f"/{name}: no such command; /help names them")

    def begin(self, session: Session) -> None:
        """Go on with another session."""
        self.session, self.before = session, []

    def set(self, key: str, value: str) -> None:
        """Change a setting, or show them all."""
        if not key:
            print(
                *(f"{k} {escape_control(format_value(v))}" for k, v in self.settings.items()),
                sep="\n",
            )
            return
        if key not in self.settings:
            raise InputError(f"{key}: no such setting; /set shows them")
        changed = self.settings | {key: parse(key, value)}
        self.check(changed)
        if key == "seed":
            self.session = self.session.fork(check_seed(changed["seed"]))
        self.settings = changed


def parse(key: str, value: str) -> str | float | None:
    """The value of a setting, from what was typed."""
    if value == "null":
        return None
    if key in ("stop", "allow"):
        return unescape(value)
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Line editing, with a history that is kept between sessions."""
    try:
        import readline
    except ImportError:  # as on Windows
        yield
        return
    folder = user_path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "charrnn"
    file = folder / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)
