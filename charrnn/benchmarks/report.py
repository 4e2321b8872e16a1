"""Shared by all benchmarks: a description of the machine, timing in turns, tables."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import charrnn
from charrnn.checkpoint import atomic_write


def machine(device: torch.device) -> dict[str, str | int]:
    """Describe the machine and versions that a time depends on."""
    about = {
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "charrnn": charrnn.__version__,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        about |= {
            "gpu": torch.cuda.get_device_name(device),
            "driver": driver_version(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return about


def driver_version() -> str:
    """Return the version of NVIDIA's driver."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text("utf-8").split()
        return next(word for word in words if word[0].isdigit() and "." in word)
    except (OSError, StopIteration):
        return "unknown"


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


TURN = 0.2
"""Seconds of a turn, at most."""


def alternate(
    runs: dict[str, Callable[[], object]], seconds: float, synchronize: Callable[[], object]
) -> dict[str, list[float]]:
    """Time runs in turns, so that other load on the machine affects all of them alike.

    In a turn a run is repeated, as the steps of a training run are: a single step after 40 ms of
    anything else takes up to a third longer.

    Args:
        runs: functions by name; each is called once before the timing starts.
        seconds: total time, exceeded if needed for five turns of each run.
        synchronize: waits for the device.

    Returns:
        Seconds of a call, the mean of each turn.
    """
    for run in runs.values():
        run()
    turn = min(TURN, seconds / (5 * len(runs)))
    times = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for name, run in runs.items():
            synchronize()
            start, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - start < turn:
                run()
                calls += 1
            synchronize()
            times[name].append((time.perf_counter() - start) / calls)
    return times


def quartiles(values: list[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive")


def multiply_rate(device: torch.device, seconds: float) -> tuple[float, int]:
    """Return the best rate (FLOP/s) of a float32 torch.mm over square sizes, and its size."""
    best = (0.0, 0)
    for size in (512, 1024, 2048) if device.type == "cpu" else (4096, 8192):
        a = torch.rand(size, size, device=device)
        out = torch.empty_like(a)
        run = {"mm": lambda a=a, out=out: torch.mm(a, a, out=out)}
        times = alternate(run, seconds, synchronizer(device))["mm"]
        best = max(best, (2 * size**3 / min(times), size))
    return best


def synchronizer(device: torch.device) -> Callable[[], object]:
    """Return a function that waits for the device."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def table(header: list[str], rows: list[list[str]]) -> str:
    """Align columns to the right, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [[cell.rjust(width) for cell, width in zip(row, widths)] for row in (header, *rows)]
    for line, row in zip(lines, (header, *rows)):
        line[0] = row[0].ljust(widths[0])
    return "\n".join("  ".join(line) for line in lines)


def write_json(file: str | None, about: dict, results: list[dict]) -> None:
    """Write machine and results to a file, if one is given."""
    if file:
        with atomic_write(file, "w") as f:
            f.write(json.dumps({"about": about, "results": results}, indent=1) + "\n")
