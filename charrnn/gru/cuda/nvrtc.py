"""The CUDA C++ of ``csrc``, compiled in the running process, kept, loaded and launched.

NVRTC, the compiler, comes with torch's own CUDA wheels; no toolkit need be there. It and the driver
are called through ctypes. Compiled modules stay in the user's cache folder, by source, options,
architecture and versions; one process builds while others wait. Nothing is compiled on import.
"""

import ctypes
import functools
import glob
import importlib.util
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import filelock
import pooch
import torch
from torch import Tensor

from charrnn.gru.build import digest, is_intact

FOLDER = Path(__file__).parent / "csrc"
SHARED_MEMORY = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""


class Unavailable(Exception):
    """Why there are no kernels, in one line."""


def source(files: Iterable[str]) -> str:
    """The text of files of ``csrc``, one after the other."""
    return "".join(f'#line 1 "{f}"\n{(FOLDER / f).read_text("utf-8")}\n' for f in files)


def module(files: tuple[str, ...], settings: tuple[tuple[str, object], ...], index: int):
    """The kernels of files with settings (-DCFG_NAME=VALUE), on the GPU of an index.

    Raises Unavailable.
    """
    found = load(files, settings, index)
    if isinstance(found, str):
        raise Unavailable(found)
    return found


@functools.cache
def load(files: tuple[str, ...], settings: tuple[tuple[str, object], ...], index: int):
    """As :func:`module`, or why there are none: looking in vain takes 30 ms each time."""
    major, minor = torch.cuda.get_device_capability(index)
    options = ["--std=c++17", *(f"-DCFG_{name}={value}" for name, value in settings)]
    try:
        image = cached(source(files), options, 10 * major + minor)
    except OSError as error:
        where = error.filename or "the cache folder"
        return f"{where}: {error.strerror}"
    except Unavailable as error:
        return str(error)
    with torch.cuda.device(index):
        need_context()
        handle = ctypes.c_void_p()
        driver("cuModuleLoadData", ctypes.byref(handle), image)
    return Module(handle)


this_thread = threading.local()


def need_context() -> None:
    """Have torch's CUDA context in this thread, for the driver: autograd's threads have none before
    their first kernel of torch's (https://github.com/pytorch/pytorch/issues/124565)."""
    if not hasattr(this_thread, "context"):
        context = ctypes.c_void_p()
        driver("cuCtxGetCurrent", ctypes.byref(context))
        if not context:
            torch.cuda.current_stream().synchronize()
        this_thread.context = context


def cached(text: str, options: list[str], architecture: int) -> bytes:
    """The compiled text, from the cache folder or put there. Raises Unavailable or OSError."""
    version = ctypes.c_int()
    driver("cuDriverGetVersion", ctypes.byref(version))
    key = digest(
        *(part.encode() for part in (text, *options)),
        f"{architecture} {nvrtc_version()} {version.value}".encode(),
    )
    root = Path(pooch.os_cache("charrnn")) / "cuda"
    file = root / f"{key}.cubin"
    if not is_intact(file):
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / f"{key}.lock"):
            if not is_intact(file):  # else another process compiled it meanwhile
                keep(file, compile_text(text, options, architecture))
    return file.read_bytes()


def keep(file: Path, image: bytes) -> None:
    """Write an image, and beside it, last, its digest; held by a lock."""
    for target, content in ((file, image), (file.with_suffix(".digest"), digest(image).encode())):
        beside = target.with_name(f"{target.name}.part")
        beside.write_bytes(content)
        beside.replace(target)


def compile_text(text: str, options: list[str], architecture: int) -> bytes:
    """Machine code for an architecture, 90 for sm_90, or PTX where NVRTC is older than the GPU.

    Raises Unavailable with the compiler's first complaint.
    """
    compiler, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    known = architectures()
    exact = architecture in known
    if not exact:
        known = [a for a in known if a <= architecture]
        if not known:
            raise Unavailable(f"NVRTC {nvrtc_version()} does not know sm_{architecture}")
        architecture = max(known)
    options = [f"--gpu-architecture={'sm' if exact else 'compute'}_{architecture}", *options]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    check(compiler.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), b"charrnn.cu", 0, None, None
    ))  # fmt: skip
    try:
        if compiler.nvrtcCompileProgram(program, len(options), array):
            check(compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
            log = ctypes.create_string_buffer(size.value)
            check(compiler.nvrtcGetProgramLog(program, log))
            lines = log.value.decode(errors="replace").splitlines()
            worst = next((line for line in lines if "error" in line), lines[0] if lines else "")
            raise Unavailable(f"NVRTC failed: {worst[:200]}")
        kind = "CUBIN" if exact else "PTX"
        check(getattr(compiler, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)))
        image = ctypes.create_string_buffer(size.value)
        check(getattr(compiler, f"nvrtcGet{kind}")(program, image))
        return image.raw
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def nvrtc() -> ctypes.CDLL:
    """NVRTC: the wheel's copy, wherever it was installed, or a toolkit's. Raises Unavailable."""
    if torch.version.cuda is None:
        raise Unavailable("this torch is built without CUDA's NVRTC")
    name = f"libnvrtc.so.{torch.version.cuda.partition('.')[0]}"
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    folders.append(str(Path(torch.__file__).parent))
    found = [f for top in folders for f in sorted(glob.glob(f"{top}/**/{name}*", recursive=True))]
    for file in (*found, name):
        try:
            # It opens its builtins by their bare name, which the loader does not find in a wheel.
            for extra in sorted(glob.glob(f"{os.path.dirname(file)}/libnvrtc-builtins.so.*")):
                ctypes.CDLL(extra, mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(file)
        except OSError:
            continue
    raise Unavailable(f"{name} is neither in torch's wheels nor installed")


@functools.cache
def nvrtc_version() -> str:
    """As in 13.0."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    check(nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def architectures() -> list[int]:
    """Those that NVRTC can compile for, 90 for sm_90."""
    count = ctypes.c_int()
    check(nvrtc().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    array = (ctypes.c_int * count.value)()
    check(nvrtc().nvrtcGetSupportedArchs(array))
    return list(array)


def check(code: int) -> None:
    """Raise Unavailable for a failure of NVRTC that is not the program's."""
    if code:
        raise Unavailable(f"NVRTC failed with code {code}")


@functools.cache
def libcuda() -> ctypes.CDLL:
    """The driver. Raises Unavailable."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Unavailable("there is no libcuda.so.1, NVIDIA's driver") from error


def driver(name: str, *args) -> None:
    """Call a function of the driver. Raises RuntimeError, in words of the driver."""
    if code := getattr(libcuda(), name)(*args):
        raise_failure()
        text = ctypes.c_char_p()
        libcuda().cuGetErrorString(code, ctypes.byref(text))
        said = text.value.decode() if text.value else f"code {code}"
        raise RuntimeError(f"CUDA error: {name}: {said}")


class Module:
    """Kernels that are loaded on a GPU."""

    def __init__(self, handle: ctypes.c_void_p):
        self.handle = handle
        self.functions: dict[str, ctypes.c_void_p] = {}
        self.shared: dict[str, int] = {}

    def function(self, name: str, shared: int) -> ctypes.c_void_p:
        if name not in self.functions:
            made = ctypes.c_void_p()
            driver("cuModuleGetFunction", ctypes.byref(made), self.handle, name.encode())
            self.functions[name] = made
        if shared > self.shared.get(name, 48 << 10):  # more has to be asked for
            driver("cuFuncSetAttribute", self.functions[name], SHARED_MEMORY, shared)
            self.shared[name] = shared
        return self.functions[name]

    def launch(
        self,
        names: str | Sequence[str],
        grid: Sequence[int],
        *args: Tensor | ctypes.Structure | int | float | None,
        block: int = 256,
        shared: int = 0,
        cooperative: bool = False,
        steps: Iterable[int] | None = None,
    ) -> None:
        """Launch a kernel, or several one after the other, on the current stream.

        Args:
            grid: blocks in x, and y where it has two.
            args: tensors as pointers, None as null, whole numbers as int, others as float,
                structures by value.
            shared: bytes of dynamic shared memory.
            cooperative: all blocks are on the chip together, or the launch fails: a block that
                waits for one that cannot start would wait for ever.
            steps: a launch for each of them, as a last argument.
        """
        need_context()
        names = [names] if isinstance(names, str) else names
        functions = [self.function(name, shared) for name in names]
        values = [as_argument(a) for a in args]
        last = ctypes.c_int()
        if steps is not None:
            values.append(last)
        array = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        size = (*(*grid, 1)[:2], 1, block, 1, 1, shared, stream, array)
        for last.value in (0,) if steps is None else steps:
            for function in functions:
                if cooperative:
                    driver("cuLaunchCooperativeKernel", function, *size)
                else:
                    driver("cuLaunchKernel", function, *size, None)


def as_argument(value: Tensor | ctypes.Structure | int | float | None):
    """A value as ctypes has it."""
    if isinstance(value, ctypes.Structure):
        return value
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p()
    return ctypes.c_int(value) if isinstance(value, int) else ctypes.c_float(value)


# What a kernel says of a failure: it writes to memory of the host, where looking costs nothing.
DEADLOCK, WRONG_INDEX = 1, 2


@functools.cache
def status() -> Tensor:
    """Four numbers in memory that host and GPU share: a code, 0 where all is well, and sizes."""
    return torch.zeros(4, dtype=torch.int32, pin_memory=torch.cuda.is_available())


def failure() -> Exception | None:
    """Return what a kernel has reported since the last call; None where all is well."""
    code, a, b, c = status().tolist()
    status().zero_()
    if code == WRONG_INDEX:
        return IndexError(f"index {a} is none of the vocabulary of {b} characters")
    if code == DEADLOCK:
        where = f"T={a}, B={b}, H={c}"
        said = f"a GRU kernel waited in vain for its other blocks at {where}, and gave up"
        return RuntimeError(f"{said}; model.backend=torch does without it")
    return None


def raise_failure() -> None:
    """Raise what a kernel has reported. IndexError, or RuntimeError for a deadlock."""
    if (error := failure()) is not None:
        raise error
