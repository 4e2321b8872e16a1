"""Runs the kernels' own source on a CPU: a fiber for each CUDA thread.

``module`` replaces :func:`charrnn.gru.cuda.nvrtc.module`; tensors stay on the CPU.
"""

import ctypes
import functools
import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from charrnn.gru.cuda import nvrtc
from charrnn.gru.cuda.plan import Card

HERE = Path(__file__).parent
FOLDER = Path(tempfile.gettempdir()) / "charrnn-emulator"
KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\) {'
)
FLAGS = ["-std=c++20", "-O2", "-w", "-shared", "-fPIC", "-U_FORTIFY_SOURCE"]


@functools.cache
def module(files: tuple[str, ...], settings: tuple[tuple[str, object], ...], index: int):
    """The kernels of files with settings."""
    return Module(ctypes.CDLL(str(build(files, settings))))


def build(files: tuple[str, ...], settings: tuple[tuple[str, object], ...]) -> Path:
    """Compile, or find what was compiled before."""
    text = translated(files)
    flags = [*FLAGS, *(f"-DCFG_{name}={value}" for name, value in settings)]
    key = hashlib.sha256("\0".join([text, *flags]).encode()).hexdigest()[:24]
    FOLDER.mkdir(exist_ok=True)
    library = FOLDER / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            made = Path(folder) / "made.cpp"
            made.write_text(text, "utf-8")
            out = made.with_suffix(".so")
            subprocess.run(["g++", *flags, "-o", str(out), str(made)], check=True)
            out.replace(library)
    return library


def translated(files: tuple[str, ...]) -> str:
    """The kernels as C++, and for each a function that launches it."""
    kernels = nvrtc.source(f for f in files if f != "instructions.cuh")
    kernels = re.sub(r"extern __shared__ [^;]*;", "", kernels)
    kernels = re.sub(r"#pragma unroll.*", "", kernels).replace('_Pragma("unroll")', "")
    kernels = kernels.replace("SPINS = 1u << 23", "SPINS = 1u << 12")
    launchers = []
    for name, parameters in KERNEL.findall(re.sub(r"//.*", "", kernels)):
        plain = parameters.replace("__restrict__", "").split(",")
        types = [re.sub(r"(?<=[\s*])\w+$", "", parameter.strip()) for parameter in plain]
        values = ", ".join(f"*({kind}*)a[{i}]" for i, kind in enumerate(types))
        launchers.append(
            f'extern "C" int run_{name}(unsigned x, unsigned y, int threads, size_t shared,'
            f" int together, void** a) {{ return launch({{x, y}}, threads, shared, together,"
            f" [=] {{ {name}({values}); }}); }}"
        )
    parts = [(HERE / "shim.h").read_text("utf-8"), (HERE / "instructions.h").read_text("utf-8")]
    return "\n".join([*parts, kernels, *launchers])


class Module:
    """As :class:`charrnn.gru.cuda.nvrtc.Module`."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library

    def launch(
        self, names, grid, *args, block=256, shared=0, cooperative=False, steps=None
    ) -> None:
        names = [names] if isinstance(names, str) else names
        values = [nvrtc.as_argument(a) for a in args]
        last = ctypes.c_int()
        if steps is not None:
            values.append(last)
        array = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        x, y = (*grid, 1)[:2]
        for last.value in (0,) if steps is None else steps:
            for name in names:
                run = getattr(self.library, f"run_{name}")
                code = run(x, y, block, ctypes.c_size_t(shared), int(cooperative), array)
                if code:
                    nvrtc.raise_failure()
                    raise RuntimeError(f"{name}: {['', 'trapped', 'all wait at barriers'][code]}")


def install(monkeypatch, multiprocessors: int = 8) -> None:
    """Have the CUDA backend compute tensors of the CPU, as on a GPU of so few multiprocessors."""
    from charrnn.gru.cuda import plan, rows

    monkeypatch.setattr(nvrtc, "module", module)
    monkeypatch.setattr(rows, "index_of", lambda device: 0)
    for name in ("layer", "exact", "many"):
        monkeypatch.setattr(f"charrnn.gru.cuda.{name}.index_of", lambda device: 0)
    monkeypatch.setattr(
        "charrnn.gru.cuda.layer.kernels", lambda cut, i: module(cut.files, cut.settings, i)
    )
    gpu = Card((9, 0), multiprocessors, 227 << 10)
    monkeypatch.setattr(plan, "card", lambda index: gpu)
