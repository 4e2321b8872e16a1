"""charrnn export: a model's weights for other programs, with its settings and its alphabet."""

from charrnn.cli.options import Parser
from charrnn.errors import escape_control


def main(arguments: list[str], program: str) -> None:
    """Write the file, and print its path."""
    parser = Parser(program, "Export a model with its settings and its alphabet.")
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("--to", choices=["safetensors", "onnx", "torch"], required=True)
    parser.add_argument("--out", help="the file to write; beside the checkpoint by default")
    given = parser.parse(arguments)
    from charrnn.export import export

    file = export(given.checkpoint, given.to, given.out, given.allow_targets)
    print(escape_control(str(file)))
