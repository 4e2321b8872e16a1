"""charrnn decompress: an archive of charrnn compress becomes the file again."""

from charrnn.cli.compress import regular_file, writable_file
from charrnn.cli.options import Parser
from charrnn.errors import escape_control


def main(arguments: list[str], program: str) -> None:
    """Write the file, which appears only when its SHA-256 is right."""
    parser = Parser(program, "Decompress an archive of charrnn compress, with the same model.")
    parser.add_argument("checkpoint", help="the checkpoint that compressed it, or its run's folder")
    parser.add_argument("archive", help="the archive")
    parser.add_argument("-o", "--out", required=True, help="the file to write")
    given = parser.parse(arguments)
    source = regular_file(given.archive)
    out = writable_file(given.out, source, given.checkpoint)
    from charrnn.checkpoint import atomic_write
    from charrnn.evaluation.compression import Compressor

    compressor = Compressor(given.checkpoint, given.allow_targets)
    with open(source, "rb") as archive, atomic_write(out, "w+b") as file:
        header = compressor.decompress(archive, file, given.archive)
    line = f"{given.out}, {header['size']:,} bytes (SHA-256 {header['sha256'][:12]}...)"
    print(escape_control(line))
