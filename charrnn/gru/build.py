"""The C++ of ``csrc``, compiled on first use and kept in the user's cache folder.

The library is plain C functions on raw pointers, without torch's headers, so that it compiles in
seconds, and it is called through ctypes, which lets other Python threads run meanwhile.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pooch
import torch

SOURCES = sorted((Path(__file__).parent / "csrc").glob("*.*"))
ARM = platform.machine().lower() in ("arm64", "aarch64")
FLAGS = [
    "-O3",
    "-mcpu=native" if ARM else "-march=native",
    "-ffp-contract=fast",  # a * b + c in one instruction, in the standard's mode of C++ too
    "-Wno-psabi",  # no vector is passed between files
]


class BuildError(Exception):
    """Why there is no library, in one line."""


_result: ctypes.CDLL | BuildError | None = None


def library() -> ctypes.CDLL:
    """The library, built if need be. Raises BuildError, the same each time in a process."""
    global _result
    if _result is None:
        try:
            _result = open_or_build(Path(pooch.os_cache("charrnn")) / "native")
        except BuildError as error:
            _result = error
        except OSError as error:
            _result = BuildError(f"{error.filename or 'the cache folder'}: {error.strerror}")
    if isinstance(_result, BuildError):
        raise _result
    return _result


def open_or_build(root: Path) -> ctypes.CDLL:
    """The library from a folder of built ones, where one process builds and others wait."""
    if sys.platform == "win32":
        raise BuildError("it is not made for Windows")
    key = digest(*(s.name.encode() + s.read_bytes() for s in SOURCES), *environment())
    file = root / f"{key}.so"
    if not intact(file):
        compiler = find_compiler()
        root.mkdir(parents=True, exist_ok=True)
        with lock(root / f"{key}.lock"):
            if not intact(file):  # else another process built it meanwhile
                build(file, compiler)
    return opened(file)


def environment() -> list[bytes]:
    """What the code that a compiler makes depends on, besides the sources."""
    processor = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
        kept = ("model name", "flags", "Features", "CPU part")
        processor += "".join(line for line in lines if line.startswith(kept))
    flags = [*FLAGS, os.environ.get("CXX", ""), torch.__version__, processor]
    return [flag.encode() for flag in flags]


def digest(*parts: bytes) -> str:
    """A name for contents, parts kept apart."""
    sums = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(sums).hexdigest()[:32]


def intact(file: Path) -> bool:
    """Whether a library is there and whole: the digest beside it is written last."""
    try:
        return file.with_suffix(".digest").read_text("ascii") == digest(file.read_bytes())
    except (OSError, ValueError):
        return False


def find_compiler() -> str:
    """The C++ compiler that torch would take. Raises BuildError where there is none."""
    name = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(name) is None:
        raise BuildError(f"no C++ compiler ({name} is not on PATH)")
    return name


@contextlib.contextmanager
def lock(file: Path) -> Iterator[None]:
    """Held by one process at a time, and let go by the system when that process ends."""
    import fcntl

    with open(file, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def build(file: Path, compiler: str) -> None:
    """Compile into a folder of its own, then move the result to its place."""
    for left in file.parent.glob(f"{file.stem}-*"):  # by a builder that was killed
        shutil.rmtree(left, ignore_errors=True)
    print(f"charrnn: building the native backend with {compiler} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix=f"{file.stem}-", dir=file.parent))
    try:
        compile_in(folder)
        made = next(folder.glob("*.so"))
        sum_of_it = digest(made.read_bytes())
        made.replace(file)
        (folder / "digest").write_text(sum_of_it, "ascii")
        (folder / "digest").replace(file.with_suffix(".digest"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - start
    print(f"charrnn: built in {seconds:.1f} s, kept in {file.parent}", file=sys.stderr, flush=True)


def compile_in(folder: Path) -> None:
    """Run the compiler. Raises BuildError with its first complaint."""
    from torch.utils import cpp_extension

    path = os.environ.get("PATH", "")
    try:
        if shutil.which("ninja") is None:  # as in a virtual environment that is not activated
            import ninja

            os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, path])
        cpp_extension.load(
            "charrnn_native",
            [str(s) for s in SOURCES if s.suffix == ".cpp"],
            extra_cflags=FLAGS,
            build_directory=str(folder),
            with_cuda=False,
            is_python_module=False,
        )
    except (RuntimeError, ImportError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        worst = next((line for line in lines if "error:" in line), lines[0] if lines else "")
        raise BuildError(f"the C++ compiler failed: {worst[:200]}") from error
    finally:
        os.environ["PATH"] = path


def opened(file: Path) -> ctypes.CDLL:
    """Load the library, and hand it the OpenMP that torch itself runs on."""
    made = ctypes.CDLL(str(file))
    with contextlib.suppress(OSError, AttributeError, StopIteration):
        # Through torch's library the symbol is looked up where torch's own calls go.
        ours = next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
        made.use_openmp(ctypes.cast(ctypes.CDLL(str(ours)).GOMP_parallel, ctypes.c_void_p))
    return made
