"""The command charrnn: one subcommand for each thing that it does."""

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from charrnn.errors import InputError, check_working_directory, escape_control

COMMANDS = {
    "train": "train a model on a text, or resume a run",
    "sample": "write text with a trained model",
    "evaluate": "report how well a model predicts a text",
    "report": "the page of a run: samples, curves, settings",
    "tensorboard": "the curves of all runs here, in TensorBoard",
    "sweep-report": "the table and the page of a sweep's results",
    "neurons": "a page of what each unit does along a text",
    "compress": "compress any file with a model's own probabilities",
    "decompress": "turn such an archive into the file again",
    "export": "write a model as a web page, safetensors, ONNX or torch",
    "corpus": "list or clear the cache of encoded texts",
    "benchmarks": "measure speed, or check the kernels on a GPU",
}
WITH_SETTINGS = ("train", "sample", "evaluate")
"""Commands whose arguments are settings KEY=VALUE; the others have options of their own."""


def main(
    arguments: Sequence[str] | None = None, script: str | None = None, program: str = "charrnn"
) -> None:
    """Run a command. Errors of input end in one line and exit code 2, Ctrl-C in 130.

    Args:
        arguments: the command and its arguments; None takes those of the process.
        script: the path of ``train.py`` or ``sample.py``, where one of these was started.
        program: how the user started the program otherwise.
    """
    from charrnn.cli.errors import one_line_errors
    from charrnn.cli.streams import reserve_descriptors

    reserve_descriptors()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    with one_line_errors():
        check_working_directory()
        if name in ("-h", "--help", "help"):
            print(help_text(program))
        elif name == "--version":
            print(version_text())
        elif name not in COMMANDS:
            raise InputError(f"{name}: no such command; {program} --help lists them")
        elif name in WITH_SETTINGS:
            run_with_settings(name, rest, script, program)
        else:
            # tensorboard serves until Ctrl-C
            with at_work(name) if name != "tensorboard" else nullcontext():
                module = importlib.import_module(f"charrnn.cli.{name.replace('-', '_')}")
                module.main(rest, f"{program} {name}")


def entry(
    arguments: Sequence[str] | None = None, script: str | None = None, program: str = "charrnn"
) -> None:
    """:func:`main` as the whole of a process."""
    from charrnn.cli.interrupts import leaves_at_once

    with leaves_at_once():
        main(arguments, script, program)


def run_with_settings(name: str, arguments: list[str], script: str | None, program: str) -> None:
    """Run a command whose arguments are settings KEY=VALUE."""
    from charrnn.cli.arguments import Program, parse
    from charrnn.cli.errors import one_line_errors
    from charrnn.training.distributed import check_environment

    if name != "sample":
        check_environment()
    names = Program(*(f"{program} {name}" for name in WITH_SETTINGS), tools=program)
    if script is not None:
        names = Program.script(script)
    elif {"-sc", "--shell-completion"} & set(arguments):
        raise InputError("-sc: completes the words of python train.py and python sample.py only")
    command = parse(name, arguments, names, os.environ)
    module = importlib.import_module(f"charrnn.cli.{command.name}")
    # A run saves when it is interrupted, and at a prompt Ctrl-C ends a text only.
    is_own = command.name == "train" or any(a.startswith("interactive=") for a in arguments)
    with one_line_errors(command), nullcontext() if is_own else at_work(command.name):
        module.main(command)


@contextmanager
def at_work(name: str) -> Iterator[None]:
    """Say that a command is at work where it has not ended soon; Ctrl-C ends it at once."""
    from charrnn.cli.interrupts import ended_by_interrupts
    from charrnn.data.waiting import say_if_slow

    is_silent = name not in ("sample", "benchmarks")  # others write as they go
    line = say_if_slow(f"{name}: at work; Ctrl-C ends it") if is_silent else nullcontext()
    with ended_by_interrupts(), line:
        yield


def help_text(program: str) -> str:
    """What ``charrnn --help`` prints."""
    lines = [f"  {name:14}{sentence}" for name, sentence in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND ...",
            "",
            "Character-level language models with gated recurrent units.",
            "",
            *lines,
            "",
            f"{program} COMMAND --help shows the settings or options of a command;",
            f"{program} --version the versions. Start with: {program} train data.path=book.txt",
        ]
    )


def version_text() -> str:
    """The versions of charrnn and of what it builds on."""
    from importlib import metadata

    from charrnn import __version__

    names = {"torch": "torch", "pytorch-lightning": "Lightning", "hydra-core": "Hydra"}
    others = ", ".join(f"{name} {metadata.version(key)}" for key, name in names.items())
    python = ".".join(map(str, sys.version_info[:3]))
    return escape_control(f"charrnn {__version__} ({others}, Python {python})")


if __name__ == "__main__":
    entry()
