"""Compiles the C++ of ``csrc`` into shared libraries, on first use or into a wheel.

They export C functions on raw pointers and link against the C and C++ runtime only, so that one
library works with every version of Python and of torch. This file needs nothing but the standard
library, since ``setup.py`` loads it where nothing is installed.
"""

import os
import platform
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "csrc"
SOURCES = [file for file in sorted(FOLDER.glob("*.*")) if file.name != "level.cpp"]
"""Of the kernels, with headers. ``level.cpp`` becomes a library of its own."""
FLAGS = [
    "-O3",
    "-std=c++17",
    "-fPIC",
    "-ffp-contract=fast",  # fused multiply-add, also with -std=c++17
    "-Wno-psabi",  # no vector is passed between files
    "-pthread",
]
LONGEST = ("backward", "bf16_backward", "bf16_forward", "forward")
"""Files that take longer to compile than others."""
LESS = ("beam", "bf16_backward", "bf16_forward", "bf16_loss", "coder", "sampler", "stack_low")
"""Files that -O2 compiles in three quarters of the time, and that are as fast."""
ARM = platform.machine().lower() in ("arm64", "aarch64")
LEVELS = ("armv8-a",) if ARM else ("x86-64", "x86-64-v3", "x86-64-v4")
"""Processors for which a wheel has a library, the least first."""


class CompileError(Exception):
    """There is no compiler, or it failed; the message says why in one line."""


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler: that of CXX, or c++. Raises CompileError."""
    command = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(command[0]) is None:
        raise CompileError(f"no C++ compiler ({command[0]} is not on PATH)")
    return command


def target(march: str) -> str:
    """Return the compiler's flag for a processor, as in x86-64-v3, or for this one, native."""
    if ARM and not march.startswith("armv"):
        return f"-mcpu={march}"
    return f"-march={march}"


def compile_kernels(library: Path, march: str, flags: Sequence[str]) -> None:
    """Compile the kernels for a processor; objects are left beside the library.

    Raises:
        CompileError: with the compiler's first error message.
    """
    compiler = [*find_compiler(), *flags, target(march)]
    # The longest first, so that no processor is idle at the end.
    sources = sorted(SOURCES, key=lambda source: (source.stem not in LONGEST, source.stem))
    commands, objects = [], []
    for source in sources:
        if source.suffix == ".cpp":
            objects.append(str(library.parent / f"{source.stem}.o"))
            less = ["-O2"] if source.stem in LESS else []
            commands.append([*compiler, *less, "-c", str(source), "-o", objects[-1]])
    run_all(commands, library.parent)
    run_all([[*compiler, "-shared", *objects, "-o", str(library)]], library.parent)


def compile_level(library: Path) -> None:
    """Compile the library that says which of ``LEVELS`` this processor has; for x86-64."""
    compiler = [*find_compiler(), *FLAGS, target(LEVELS[0])]
    source = str(FOLDER / "level.cpp")
    run_all([[*compiler, "-shared", source, "-o", str(library)]], library.parent)


def run_all(commands: Iterable[Sequence[str]], folder: Path) -> None:
    """Run commands, as many at once as there are processors. Raises CompileError if one fails.

    What is still running then is ended, as it is when this thread is interrupted.
    """
    waiting, running = list(commands)[::-1], []
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                log = folder / f"{len(waiting)}.log"
                with log.open("wb") as errors:
                    process = subprocess.Popen(
                        waiting.pop(), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
                    )
                running.append((process, log))
            for process, log in running:
                if process.poll():
                    lines = log.read_text("utf-8", "replace").splitlines()
                    none = f"{process.args[0]} ended with {process.returncode}"
                    first = next((li for li in lines if "error:" in li), (*lines, none)[0])
                    raise CompileError(f"the C++ compiler failed: {first.strip()[:200]}")
            running = [each for each in running if each[0].returncode is None]
            time.sleep(0.02)
    except OSError as error:
        raise CompileError(f"the C++ compiler cannot be run: {error.strerror}") from error
    finally:
        for process, _ in running:
            process.kill()
        for process, _ in running:
            process.wait()
