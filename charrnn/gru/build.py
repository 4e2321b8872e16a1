"""Compile the C++ of ``csrc`` on first use, and keep the library in the user's cache folder.

The library exports C functions on raw pointers and needs none of torch's headers, so it compiles
in seconds. It is called through ctypes, which releases the GIL.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import filelock
import pooch
import torch

from charrnn.data.waiting import hold

SOURCES = sorted((Path(__file__).parent / "csrc").glob("*.*"))
ARM = platform.machine().lower() in ("arm64", "aarch64")
MARCH = os.environ.get("CHARRNN_MARCH", "native")
"""The processor for which is compiled, as in x86-64-v3; kernels for AMX come with any."""
FLAGS = [
    "-O3",
    f"-mcpu={MARCH}" if ARM else f"-march={MARCH}",
    "-ffp-contract=fast",  # fused multiply-add, also with -std=c++17
    "-Wno-psabi",  # no vector is passed between files
]


class BuildError(Exception):
    """The library cannot be built; the message says why in one line."""


_result: ctypes.CDLL | BuildError | None = None


def library() -> ctypes.CDLL:
    """Return the library, after building it if necessary.

    Raises:
        BuildError: it cannot be built; the same error at every call in a process.
    """
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
    """Return the library from a folder of builds; one process builds it, others wait."""
    if sys.platform == "win32":
        raise BuildError("Windows is not supported")
    key = digest(*(s.name.encode() + s.read_bytes() for s in SOURCES), *environment())
    file = root / f"{key}.so"
    if not is_intact(file):
        compiler = find_compiler()
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(root / f"{key}.lock")
        with hold(lock, "charrnn: waiting for another process, which builds the native backend"):
            if not is_intact(file):  # another process may have built it meanwhile
                build(file, compiler)
    return load(file)


def environment() -> list[bytes]:
    """Return what the compiled code depends on besides the sources: flags, compiler, processor."""
    processor = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
        kept = ("model name", "flags", "Features", "CPU part")
        processor += "".join(line for line in lines if line.startswith(kept))
    flags = [*FLAGS, os.environ.get("CXX", ""), torch.__version__, processor]
    return [flag.encode() for flag in flags]


def digest(*parts: bytes) -> str:
    """Return a hash of a sequence of byte strings."""
    sums = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(sums).hexdigest()[:32]


def is_intact(file: Path) -> bool:
    """Whether a library exists and is complete; its .digest file is written last."""
    try:
        return file.with_suffix(".digest").read_text("ascii") == digest(file.read_bytes())
    except (OSError, ValueError):
        return False


def find_compiler() -> str:
    """Return the C++ compiler that torch uses. Raises BuildError if there is none."""
    name = (os.environ.get("CXX", "").split() or ["c++"])[0]
    if shutil.which(name) is None:
        raise BuildError(f"no C++ compiler ({name} is not on PATH)")
    return name


def build(file: Path, compiler: str) -> None:
    """Compile into a temporary folder, then rename the result; the caller holds the lock."""
    for stale in file.parent.glob(f"{file.stem}-*"):  # left by a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    print(f"charrnn: building the native backend with {compiler} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix=f"{file.stem}-", dir=file.parent))
    try:
        compile_in(folder)
        built = next(folder.glob("*.so"))
        expected = digest(built.read_bytes())
        built.replace(file)
        (folder / "digest").write_text(expected, "ascii")
        (folder / "digest").replace(file.with_suffix(".digest"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - start
    print(f"charrnn: built in {seconds:.1f} s, kept in {file.parent}", file=sys.stderr, flush=True)


def compile_in(folder: Path) -> None:
    """Run the compiler. Raises BuildError with its first error message."""
    from torch.utils import cpp_extension

    path = os.environ.get("PATH", "")
    try:
        if shutil.which("ninja") is None:  # a virtual environment that is not activated
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
    except (RuntimeError, ImportError, OSError, subprocess.SubprocessError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        first = next((line for line in lines if "error:" in line), lines[0] if lines else "")
        raise BuildError(f"the C++ compiler failed: {first[:200]}") from error
    finally:
        os.environ["PATH"] = path


def load(file: Path) -> ctypes.CDLL:
    """Load the library, and make it share the OpenMP runtime (and threads) of torch."""
    loaded = ctypes.CDLL(str(file))
    with contextlib.suppress(OSError, AttributeError, StopIteration):
        # Looked up through torch's library, the symbol is the one that torch itself calls.
        torch_cpu = next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
        parallel = ctypes.CDLL(str(torch_cpu)).GOMP_parallel
        loaded.use_openmp(ctypes.cast(parallel, ctypes.c_void_p))
    return loaded
