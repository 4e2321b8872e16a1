"""The library of the kernels: that of a wheel, or one compiled on first use and kept.

It is called through ctypes, which releases the GIL. A wheel has a library for each of
``compile.LEVELS``, of which the processor decides. A checkout compiles for this processor, into the
user's cache folder; so does a wheel for the processor that the environment variable CHARRNN_MARCH
names, unless it has that library.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import filelock

from charrnn.data.waiting import hold
from charrnn.gru.compile import (
    FLAGS,
    LEVELS,
    SOURCES,
    CompileError,
    compile_kernels,
    find_compiler,
)

VARIABLE = "CHARRNN_MARCH"
"""The processor for which is compiled, as in x86-64-v3; kernels for AMX come with any."""
SHIPPED = Path(__file__).parent / "lib"
"""The libraries of a wheel."""


class BuildError(Exception):
    """The library cannot be built; the message says why in one line."""


_result: ctypes.CDLL | BuildError | None = None
_background: threading.Thread | None = None


def library() -> ctypes.CDLL:
    """Return the library, after building it if necessary.

    Raises:
        BuildError: it cannot be built; the same error at every call in a process.
    """
    global _result
    if _background is not None:
        _background.join()
    if _result is None:
        try:
            _result = load(find())
        except BuildError as error:
            _result = error
    if isinstance(_result, BuildError):
        raise _result
    return _result


def begin() -> None:
    """Build the library in the background if necessary, as while torch is imported."""
    global _background
    if _background is None and _result is None:
        _background = threading.Thread(target=find_in_background, daemon=True)
        _background.start()


def find_in_background() -> None:
    """What :func:`begin` does. The library is loaded later, since that imports torch."""
    global _result
    try:
        find()
    except BuildError as error:
        _result = error


def find() -> Path:
    """Return the file of the library, after building it if necessary. Raises BuildError."""
    march = os.environ.get(VARIABLE)
    file = SHIPPED / f"{march or best_level()}.so"
    if file.is_file():
        return file
    import pooch  # on use, since it is slow

    try:
        return find_or_build(Path(pooch.os_cache("charrnn")) / "native", march or "native")
    except OSError as error:
        where = error.filename or "the cache folder"
        raise BuildError(f"{where}: {error.strerror}") from error


def best_level() -> str:
    """Return the best of ``LEVELS`` that this processor has; the least in a checkout."""
    file = SHIPPED / "level.so"
    return LEVELS[max(0, cpu_level(file) - 2)] if file.is_file() else LEVELS[0]


def cpu_level(file: Path) -> int:
    """Return what the library of ``level.cpp`` says: 1, 3 or 4, as in x86-64-v3."""
    return ctypes.CDLL(str(file)).cpu_level()


def find_or_build(root: Path, march: str = "native") -> Path:
    """Return the library in a folder of builds; one process builds it, others wait."""
    if sys.platform == "win32":
        raise BuildError("Windows is not supported")
    contents = (s.name.encode() + s.read_bytes() for s in SOURCES)
    key = digest(*contents, *environment(march))
    file = root / f"{key}.so"
    if not is_intact(file):
        try:
            compiler = find_compiler()
        except CompileError as error:
            raise BuildError(f"{error}{missing()}") from error
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(root / f"{key}.lock")
        with hold(lock, "charrnn: waiting for another process, which builds the native backend"):
            if not is_intact(file):  # another process may have built it meanwhile
                build(file, compiler[0], march)
    return file


def missing() -> str:
    """Why there is no library to begin with, where this is no checkout."""
    is_checkout = (Path(__file__).parents[2] / "pyproject.toml").is_file()
    return "" if is_checkout or SHIPPED.is_dir() else ", and the wheel was made without one"


def environment(march: str) -> list[bytes]:
    """Return what the compiled code depends on besides the sources: flags, compiler, processor."""
    processor = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
        kept = ("model name", "flags", "Features", "CPU part")
        processor += "".join(line for line in lines if line.startswith(kept))
    flags = [*FLAGS, march, os.environ.get("CXX", ""), processor]
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


def build(file: Path, compiler: str, march: str) -> None:
    """Compile into a temporary folder, then rename the result; the caller holds the lock."""
    for stale in file.parent.glob(f"{file.stem}-*"):  # left by a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    print(f"charrnn: building the native backend with {compiler} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix=f"{file.stem}-", dir=file.parent))
    try:
        built = folder / "charrnn.so"
        try:
            compile_kernels(built, march, FLAGS)
        except CompileError as error:
            raise BuildError(str(error)) from error
        expected = digest(built.read_bytes())
        built.replace(file)
        (folder / "digest").write_text(expected, "ascii")
        (folder / "digest").replace(file.with_suffix(".digest"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - start
    print(f"charrnn: built in {seconds:.1f} s, kept in {file.parent}", file=sys.stderr, flush=True)


def load(file: Path) -> ctypes.CDLL:
    """Load the library, and give it the functions of torch's OpenMP (see ``parallel.cpp``)."""
    try:
        loaded = ctypes.CDLL(str(file))
    except OSError as error:
        raise BuildError(f"{file} cannot be loaded: {error}") from error
    names = ("GOMP_parallel", "omp_get_num_procs", "omp_pause_resource_all")
    loaded.use_openmp(*map(torch_function, names))
    return loaded


def torch_function(name: str) -> ctypes.c_void_p | None:
    """Return a C function of the libraries that torch is linked with; None if they have none."""
    import torch

    try:
        # Looked up through torch's library, a symbol is the one that torch itself calls.
        file = next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
        return ctypes.cast(getattr(ctypes.CDLL(str(file)), name), ctypes.c_void_p)
    except (OSError, AttributeError, StopIteration):
        return None
