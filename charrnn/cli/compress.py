"""charrnn compress: a file becomes an archive, coded with a model's own probabilities."""

import math
import tempfile
import time
from pathlib import Path

from charrnn.cli.options import Parser
from charrnn.errors import InputError, escape_control


def main(arguments: list[str], program: str) -> None:
    """Write the archive, and print its size beside what evaluation predicts and others need."""
    parser = Parser(program, "Compress a file losslessly with a model's own probabilities.")
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("file", help="any file")
    parser.add_argument("-o", "--out", required=True, help="the archive to write")
    parser.add_argument(
        "--dynamic", action="store_true", help="the parameters follow the text; slower"
    )
    parser.add_argument("--streams", type=int, help="parts that are coded at once (up to 64)")
    parser.add_argument("--lr", type=float, help="with --dynamic (0.01)")
    parser.add_argument("--decay", type=float, help="with --dynamic (0)")
    given = parser.parse(arguments)
    rates = {k: getattr(given, k) for k in ("lr", "decay") if getattr(given, k) is not None}
    if rates and not given.dynamic:
        raise InputError(f"--{next(iter(rates))}: is of a dynamic compression; give --dynamic too")
    source = regular_file(given.file)
    out = writable_file(given.out, source, given.checkpoint)
    from charrnn.checkpoint import atomic_write
    from charrnn.evaluation.baselines import compressed_sizes
    from charrnn.evaluation.compression import LR, Compressor

    compressor, start = Compressor(given.checkpoint, given.allow_targets), time.perf_counter()
    settings = {"dynamic": given.dynamic, "streams": given.streams, **rates}
    with open(source, "rb") as file:
        with (
            tempfile.TemporaryFile(dir=out.parent) as scratch,
            atomic_write(out, "w+b") as archive,
        ):
            result = compressor.compress(file, archive, scratch, **settings)
        seconds = time.perf_counter() - start
        others = compressed_sizes(file)
    mode = "static"
    if given.dynamic:
        mode = f"dynamic, lr {rates.get('lr', LR):g}, decay {rates.get('decay', 0):g}"
    noun = "stream" if result.streams == 1 else "streams"
    per_second = result.size / max(result.seconds, 1e-6) / 1000
    lines = [
        f"file      {given.file}, {result.size:,} bytes (SHA-256 {result.sha256[:12]}...)",
        f"model     {compressor.description}",
        f"archive   {given.out}, {mode}, {result.streams} {noun}, verified by decompressing it;"
        f" {seconds:.1f} s, of which coding {result.seconds:.1f} s, {per_second:,.0f} KB/s",
    ]
    if result.characters:
        coded, predicted = 8 * result.code / result.characters, result.nats / math.log(2)
        predicted /= result.characters
        lines.append(
            f"coded     {coded:.4f} bits per character; evaluation says {predicted:.4f}"
            f" ({coded / predicted - 1:+.2%})"
        )
    if result.unknown:
        lines.append(
            f"          {result.unknown:,} of {result.characters:,} characters are outside the"
            " alphabet; evaluation does not count what they are"
        )
    sizes = {"charrnn": result.archive, **others}
    lines += ["", f"{'':10}{'bytes':>14}{'of the file':>13}"]
    lines += [f"{name:10}{format_size(size, result.size)}" for name, size in sizes.items()]
    print(escape_control("\n".join(lines)))


def format_size(size: int | None, whole: int) -> str:
    """Format a size and its share of the file."""
    if size is None:
        return '  not installed: pip install "charrnn[zst]"'
    return f"{size:14,}" + (f"{size / whole:13.2%}" if whole else "")


def regular_file(name: str) -> Path:
    """Return the path of a file to read. Raises InputError unless it is a regular file."""
    from charrnn.data.files import user_path

    path = user_path(name)
    if not path.is_file():
        raise InputError(
            f"{name}: is no regular file" if path.exists() else f"{name}: no such file"
        )
    return path


def writable_file(name: str, source: Path, model: str) -> Path:
    """Return the path of a file to write. Raises InputError unless there can be one.

    It is neither the file to read nor the checkpoint ``model``.
    """
    from charrnn.checkpoint import find_checkpoint
    from charrnn.data.files import user_path

    path = user_path(name)
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"-o {name}: name a file in a folder that exists")
    if path.exists() and path.samefile(source):
        raise InputError(f"-o {name}: is the file to read; name another one")
    if path.exists() and path.samefile(find_checkpoint(model)):
        raise InputError(f"-o {name}: is the model; name another file")
    return path
