"""charrnn benchmarks NAME: the modules of charrnn/benchmarks/, each with options of its own."""

import importlib

from charrnn.errors import InputError

NAMES = ("training", "threads", "loop", "sampling", "encoding", "scaling", "gpu_check")


def main(arguments: list[str], program: str) -> None:
    """Run a benchmark, as ``python -m charrnn.benchmarks.NAME`` does."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        print(f"usage: {program} NAME [--help | options]\n\nNAME is one of {', '.join(NAMES)}.")
        return
    if name not in NAMES:
        raise InputError(f"{name}: no such benchmark; they are {', '.join(NAMES)}")
    importlib.import_module(f"charrnn.benchmarks.{name}").main(rest)
