"""Megabytes per second from a text file to an encoded corpus: python -m charrnn.benchmarks.encoding

"Ours" opens a text for the first time: it reads the text for its hash, for its charset and to
encode it, and writes the encoded file with its checksum. "Again" opens it once more: it reads the
text for its hash and the encoded file for its checksum. The text is in the system's file cache. The
baseline is plain Python (a sorted set, a dictionary, a list of indices) on the first five million
characters. All run in turns on one core in one process, after their indices were compared.
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from charrnn.benchmarks import report
from charrnn.data.corpus import open_corpus
from charrnn.data.stdlib import stdlib_files

SCRIPTS = ((0x20, 0x7F), (0xC0, 0x250), (0x391, 0x3CA), (0x410, 0x450), (0x5D0, 0x5EB),
           (0x3041, 0x3097), (0x4E00, 0x5600), (0x1F600, 0x1F650))  # fmt: skip
"""Code points of the mixed text: Latin, Greek, Cyrillic, Hebrew, Kana, Han, emoji."""


def make(kind: str, size: int) -> str:
    """Make a text of about ``size`` bytes: Python's own library, or words of many scripts."""
    if kind == "ascii":
        text, files = "", stdlib_files()
        for file in files:
            text += file.read_text("ascii", "ignore")
            if len(text) >= size:
                break
        return (text * (size // len(text) + 1))[:size]
    chance = random.Random(0)
    words = [
        "".join(chr(chance.randrange(*script)) for _ in range(chance.randint(1, 9)))
        for script in SCRIPTS
        for _ in range(2000)
    ]
    text = " ".join(chance.choices(words, k=size // 10))
    return text[: len(text) * size // len(text.encode("utf-8"))]


def in_python(file: Path) -> np.ndarray:
    """The baseline: encode with a dictionary."""
    text = file.read_text("utf-8")
    index = {character: i for i, character in enumerate(sorted(set(text)), 1)}
    return np.array([index[character] for character in text])


def measure(kind: str, args: argparse.Namespace, folder: Path) -> dict:
    """Measure one row of the table."""
    file, short, cache = folder / f"{kind}.txt", folder / f"{kind}.short", folder / "cache"
    text = make(kind, int(args.megabytes * 1e6))
    file.write_text(text, "utf-8", newline="")
    short.write_text(text[: min(len(text), 5_000_000)], "utf-8", newline="")
    corpus = open_corpus([file], cache_dir=folder / "kept")
    if not np.array_equal(open_corpus([short], cache_dir=cache).tokens.numpy(), in_python(short)):
        sys.exit(f"error: {kind} text is encoded to other indices than by a dictionary")

    processor = []  # seconds of processor time, without other programs and the disk

    def cold():
        shutil.rmtree(cache, ignore_errors=True)
        start = time.process_time()
        open_corpus([file], cache_dir=cache)
        processor.append(time.process_time() - start)

    runs = {
        "ours": cold,
        "again": lambda: open_corpus([file], cache_dir=folder / "kept"),
        "baseline": lambda: in_python(short),
    }
    times = report.alternate(runs, args.seconds, lambda: None)
    megabytes = file.stat().st_size / 1e6
    sizes = {"ours": megabytes, "again": megabytes, "baseline": short.stat().st_size / 1e6}
    rates = {name: [sizes[name] / t for t in values] for name, values in times.items()}
    rates["ours, by processor time"] = [megabytes / t for t in processor]
    return {
        "text": kind,
        "megabytes": megabytes,
        "characters": len(corpus.tokens),
        "vocab_size": len(corpus.charset),
        "count": len(times["ours"]),
        "megabytes_per_second": {name: report.quartiles(values) for name, values in rates.items()},
        "ratio": report.quartiles([a / b for a, b in zip(rates["ours"], rates["baseline"])]),
    }


HEADER = ["text", "MB", "V", "ours MB/s (quartiles)", "by processor time", "again MB/s",
          "Python MB/s", "ratio (quartiles)", "turns"]  # fmt: skip


def as_row(result: dict) -> list[str]:
    """Format a result as a row of the table."""
    rate = result["megabytes_per_second"]
    return [
        result["text"],
        f"{result['megabytes']:.1f}",
        str(result["vocab_size"]),
        "{1:.0f} ({0:.0f}-{2:.0f})".format(*rate["ours"]),
        "{1:.0f} ({0:.0f}-{2:.0f})".format(*rate["ours, by processor time"]),
        f"{rate['again'][1]:.0f}",
        f"{rate['baseline'][1]:.1f}",
        "{1:.1f} ({0:.1f}-{2:.1f})".format(*result["ratio"]),
        str(result["count"]),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", choices=["ascii", "mixed"], action="append")
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=20, help="for each row of the table")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with contextlib.suppress(AttributeError):  # where the system has no such call
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    about = report.machine(torch.device("cpu")) | {"numpy": np.__version__}
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print("ours: from an empty cache; again: from the cache; on one core\n")
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(kind, args, Path(folder)) for kind in args.text or ("ascii", "mixed")]
    print(report.table(HEADER, [as_row(result) for result in results]))
    report.write_json(args.json, about, results)


if __name__ == "__main__":
    main()
