"""charrnn export: a model for other programs, as a page, or as a folder for a model hub."""

from charrnn.cli.options import Parser
from charrnn.errors import InputError, escape_control

FORMATS = ["html", "folder", "safetensors", "onnx", "torch"]


def main(arguments: list[str], program: str) -> None:
    """Write the file or the folder, print its path, and push the folder where that is asked."""
    parser = Parser(program, "Export a model with its settings and its alphabet.")
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("--to", choices=FORMATS, required=True)
    parser.add_argument("-o", "--out", help="the file or folder; beside the checkpoint by default")
    parser.add_argument("--bits", type=int, choices=[32, 16, 8], help="of a page's weights (16)")
    parser.add_argument("--license", help="of a folder's model card, such as apache-2.0 (unknown)")
    parser.add_argument("--push", metavar="USER/NAME", help="upload the folder to a model hub")
    given = parser.parse(arguments)
    from charrnn.export import export, hub

    if given.push is not None:
        if given.to != "folder":
            raise InputError("--push: uploads a folder; give --to folder")
        hub.check_name(given.push)
    notes: list[str] = []
    options = {k: getattr(given, k) for k in ("bits", "license") if getattr(given, k) is not None}
    file = export(
        given.checkpoint, given.to, given.out, given.allow_targets, notes.append, **options
    )
    print(escape_control(": ".join([str(file), *notes])))
    if given.push is not None:
        print(escape_control(f"pushed to {hub.push(file, given.push)}"))
