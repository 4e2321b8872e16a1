"""charrnn export: a model for other programs, or as a page; with its settings and alphabet."""

from charrnn.cli.options import Parser
from charrnn.errors import escape_control


def main(arguments: list[str], program: str) -> None:
    """Write the file, and print its path."""
    parser = Parser(program, "Export a model with its settings and its alphabet.")
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("--to", choices=["safetensors", "onnx", "torch", "html"], required=True)
    parser.add_argument("--out", help="the file to write; beside the checkpoint by default")
    parser.add_argument("--bits", type=int, choices=[32, 16, 8], help="of a weight in html (16)")
    given = parser.parse(arguments)
    from charrnn.export import export

    notes: list[str] = []
    file = export(
        given.checkpoint, given.to, given.out, given.allow_targets, given.bits, notes.append
    )
    print(escape_control(": ".join([str(file), *notes])))
