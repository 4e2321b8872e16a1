"""charrnn tensorboard: the curves of runs in TensorBoard, under the names of the runs."""

import argparse
import contextlib
import io
import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from urllib.parse import urlencode

from charrnn.cli.options import Parser
from charrnn.data.files import user_path
from charrnn.errors import InputError, escape_control, one_line

FOLDERS = ("outputs", "multirun")
"""Where runs and sweeps are, unless their folder was named."""
SECONDS = 3
"""Between two searches for new runs; TensorBoard reads its files every five seconds."""
PINS = [{"plugin": "scalars", "tag": tag} for tag in ("val/loss", "train/loss")]
VIEW = f"?{urlencode({'smoothing': 0, 'pinnedCards': json.dumps(PINS, separators=(',', ':'))})}"
VIEW += "#timeseries&_smoothingWeight=0"
"""What the page reads of its address, in TIME SERIES and, behind #, in SCALARS: curves without the
smoothing of 0.6, which would move validations, and the losses at the top."""


def main(arguments: list[str], program: str) -> None:
    """Serve until Ctrl-C."""
    given = parse(arguments, program)
    folders = [user_path(folder) for folder in given.folders]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give that of a run, a sweep or several")
    folders = folders or [f for f in map(Path, FOLDERS) if f.is_dir()] or [Path()]
    from charrnn.runs.event_links import link_events

    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="charrnn-") as links:
        count = link_events(folders, Path(links))
        if not count:
            where = " or ".join(str(f) for f in folders)
            raise InputError(f"{where}: no event files below it; logger=tensorboard writes them")
        url = serve(Path(links), given)
        runs = "1 run" if count == 1 else f"{count:,} runs"
        print(escape_control(f"{runs} at {url} (Ctrl-C ends this)"), flush=True)
        while True:
            sleep(SECONDS)
            with contextlib.suppress(OSError):  # of a run that is just being moved or removed
                link_events(folders, Path(links))


def parse(arguments: list[str], program: str) -> argparse.Namespace:
    """Parse folders and TensorBoard's own options, before or behind ``--``.

    Raises:
        InputError: an option is unknown, or has no such value.
    """
    description = (
        "Show the curves of runs in TensorBoard, also while they train. Runs that begin later"
        " appear. Every option with which tensorboard serves is taken too."
    )
    parser = Parser(program, description)
    text = "of runs or sweeps; outputs and multirun by default"
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=text)
    parser.add_argument("--port", help="6006, or the next one that is free")
    parser.add_argument("--host", help="the address to listen at (localhost)")
    if {"-h", "--help"} & set(arguments):
        parser.parse_args(arguments)
    from tensorboard.program import TensorBoard

    parser = Parser(program, description)
    parser.add_argument("folders", nargs="*")
    for loader in TensorBoard().plugin_loaders:
        loader.define_flags(parser)
    given = parser.parse_intermixed_args([a for a in arguments if a != "--"])
    for name in ("inspect", "version_tb"):
        if getattr(given, name):
            raise InputError(f"--{name}: serves nothing; run tensorboard itself for that")
    given.folders += [given.logdir] if given.logdir else []
    return given


def serve(links: Path, given: argparse.Namespace) -> str:
    """Start TensorBoard in this process, and return its address.

    Raises:
        InputError: it cannot be started with these options.
    """
    from tensorboard.plugins.base_plugin import FlagsError
    from tensorboard.program import (
        TensorBoard,
        TensorBoardServerException,
        create_port_scanning_werkzeug_server,
    )

    def server(app, flags):
        return create_port_scanning_werkzeug_server(with_view(app, flags.path_prefix), flags)

    flags = vars(given) | {"logdir": str(links)}
    del flags["folders"]
    said = io.StringIO()  # advice on its ways of loading, and errors
    try:
        with contextlib.redirect_stderr(said):
            board = TensorBoard(server_class=server)
            board.configure(logdir=str(links))
            vars(board.flags).update(flags)
            for loader in board.plugin_loaders:
                loader.fix_flags(board.flags)
            return board.launch()
    except (FlagsError, TensorBoardServerException) as error:
        raise InputError(f"tensorboard: {one_line(str(error) or error.msg)}") from error
    except SystemExit as error:
        raise InputError(f"tensorboard: {one_line(said.getvalue())}") from error


def with_view(app, prefix: str):
    """Return a WSGI application that opens TensorBoard's page with ``VIEW``."""

    def answer(environ, start_response):
        if environ["PATH_INFO"] == f"{prefix}/" and not environ.get("QUERY_STRING"):
            start_response("302 Found", [("Location", VIEW), ("Content-Length", "0")])
            return []
        return app(environ, start_response)

    return answer


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """End with exit code 0 after Ctrl-C, SIGTERM, or a terminal that was closed."""

    def end(number, frame) -> None:
        for each in numbers:  # a second Ctrl-C would leave the links behind
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(0)

    names = ("SIGINT", "SIGTERM", "SIGHUP")  # not every system has the last
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
