"""Export: a model's weights for other programs, with its settings and its alphabet.

python -m charrnn.export.formats CHECKPOINT --to safetensors|onnx|torch [--out FILE]

B rows, L layers, H hidden size, V vocabulary size.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import nn

from charrnn import __version__, checkpoint
from charrnn.checkpoint.files import atomic_write
from charrnn.data.charset import Charset
from charrnn.errors import InputError, escape_control
from charrnn.models import GRUEncode

ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt"}
OPSET = 17


def main(arguments: list[str] | None = None) -> None:
    """Export as the command line says."""
    parser = argparse.ArgumentParser(
        "python -m charrnn.export.formats", description="Export a model."
    )
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("--to", choices=ENDINGS, required=True)
    parser.add_argument("--out", help="the file to write; beside the checkpoint where not given")
    given = parser.parse_args(arguments)
    try:
        print(escape_control(str(export(given.checkpoint, given.to, given.out))))
    except (InputError, OSError) as error:
        line = " ".join(str(error).split())
        print(f"error: {escape_control(line)}", file=sys.stderr)
        sys.exit(2)


def export(path: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write a checkpoint's model as a file of another kind, whole or not at all.

    Args:
        to: "safetensors", which :func:`charrnn.load` and ``init_from=`` read again; "onnx", one
            step as a graph; "torch", plain dictionaries of tensors, that of ``gru`` for a
            ``torch.nn.GRU`` (whose form has the reset after the product and logistic gates).
        out: the file; None puts it beside the checkpoint.

    Returns:
        The file.

    Raises:
        InputError: no checkpoint of ours, or a package that this needs is not installed.
        OSError: the file cannot be written.
    """
    file = checkpoint.find_checkpoint(path)
    saved = checkpoint.read(file)
    model, charset = checkpoint.build_model(saved)
    description = describe(saved, charset)
    out = file.with_suffix(ENDINGS[to]) if out is None else Path(out)
    write = {"safetensors": to_safetensors, "onnx": to_onnx, "torch": to_torch}[to]
    with atomic_write(out) as f:
        write(model, description, f)
    return out


def describe(saved: dict, charset: Charset) -> dict:
    """What the weights do not say: plain values, without the paths of the machine."""
    ours = saved["charrnn"]
    return {
        "format": checkpoint.FORMAT,
        "version": __version__,
        "settings": {"model": ours["settings"]["model"]},
        "charset": charset.state_dict(),
    }


def needed(module: str):
    """A module of the extra "export". Raises InputError where it is not installed."""
    try:
        return __import__(module, fromlist=["_"])
    except ImportError as error:
        raise InputError(
            f'{module.partition(".")[0]} is not installed: pip install "charrnn[export]"'
        ) from error


def to_safetensors(model: nn.Module, description: dict, file: BinaryIO) -> None:
    """The parameters under their names, and the description as JSON in the file's metadata."""
    tensors = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    named = {checkpoint.PREFIX + k: v for k, v in tensors.items()}
    description = description | {"sha256": checkpoint.checksum(description, named)}
    metadata = {"format": "pt", checkpoint.METADATA: json.dumps(description)}
    file.write(needed("safetensors.torch").save(tensors, metadata))


def to_torch(model: nn.Module, description: dict, file: BinaryIO) -> None:
    """Dictionaries of tensors for the modules of the model, which ``weights_only`` reads."""
    parts = {name: dict(part.state_dict()) for name, part in model.named_children()}
    torch.save(description | {name: part for name, part in parts.items() if part}, file)


def to_onnx(model: nn.Module, description: dict, file: BinaryIO) -> None:
    """One step as a graph: index (B) and state (L, B, H) to logits (B, V) and next_state (L, B, H).

    It is made of products and element-wise operations, which every runtime computes alike. The
    description is in its metadata, as "charrnn".
    """
    onnx = needed("onnx")
    graph = Graph(onnx.helper)
    layers, hidden = model.gru.num_layers, model.gru.hidden_size
    dtype = onnx.helper.np_dtype_to_tensor_dtype(numpy(model.decoder.weight).dtype)
    x = "index"
    if isinstance(model, GRUEncode):
        row = graph("Gather", graph.constant(model.embed.weight), x)
        x = graph("Tanh", graph("Add", row, graph.constant(model.embed.bias)))
    states = []
    for layer, weights in enumerate(model.gru.all_weights):
        h = graph("Gather", "state", graph.constant(np.array(layer)), axis=0)
        x = gru_step(graph, x, h, weights, model.gru.reset, model.gru.gate)
        states.append(graph("Unsqueeze", x, graph.constant(np.array([0]))))
    decoder = graph.constant(model.decoder.weight), graph.constant(model.decoder.bias)
    graph("Gemm", x, *decoder, transB=1, out="logits")
    graph("Concat", *states, axis=0, out="next_state")

    def value(name: str, kind: int, *shape: str | int):
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    made = onnx.helper.make_graph(
        graph.nodes, "charrnn_step",
        [value("index", onnx.TensorProto.INT64, "B"), value("state", dtype, layers, "B", hidden)],
        [value("logits", dtype, "B", model.decoder.out_features),
         value("next_state", dtype, layers, "B", hidden)],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    whole = onnx.helper.make_model(made, opset_imports=opsets, ir_version=8)
    onnx.helper.set_model_props(whole, {checkpoint.METADATA: json.dumps(description)})
    onnx.checker.check_model(whole)
    file.write(whole.SerializeToString())


def gru_step(graph: "Graph", x: str, h: str, weights, reset: str, gate: str) -> str:
    """One layer's new state (B, H) from its input, (B, I) or, in the first layer, an index (B)."""
    weight_ih, weight_hh, bias_ih, bias_hh = (numpy(w) for w in weights)
    hidden = weight_hh.shape[1]
    if x == "index":  # the column of a one-hot vector
        inputs = graph("Gather", graph.constant(np.ascontiguousarray(weight_ih.T)), x)
        inputs = graph("Add", inputs, graph.constant(bias_ih))
    else:
        inputs = graph("Gemm", x, graph.constant(weight_ih), graph.constant(bias_ih), transB=1)
    x_rz, x_n = graph.split(inputs, 2 * hidden, hidden)

    def product(state: str, rows: slice) -> str:
        weight, bias = graph.constant(weight_hh[rows]), graph.constant(bias_hh[rows])
        return graph("Gemm", state, weight, bias, transB=1)

    rz = graph("Add", x_rz, product(h, slice(0, 2 * hidden)))
    # ONNX's HardSigmoid is max(0, min(1, alpha a + beta)).
    rz = graph("Sigmoid", rz) if gate == "sigmoid" else graph("HardSigmoid", rz, alpha=0.2)
    r, z = graph.split(rz, hidden, hidden)
    rows = slice(2 * hidden, None)
    if reset == "after":
        heard = graph("Mul", r, product(h, rows))
    else:
        heard = product(graph("Mul", r, h), rows)
    n = graph("Tanh", graph("Add", x_n, heard))
    return graph("Add", n, graph("Mul", z, graph("Sub", h, n)))  # (1 - z) n + z h


class Graph:
    """Nodes in their order. Called with an operation and its inputs, it names the output."""

    def __init__(self, helper):
        self.helper, self.nodes, self.constants = helper, [], {}

    def __call__(self, operation: str, *inputs: str, out: str | None = None, **attributes) -> str:
        out = out or f"v{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operation, inputs, [out], **attributes))
        return out

    def split(self, x: str, first: int, second: int) -> tuple[str, str]:
        """The two parts of (B, first + second)."""
        outs = [f"v{len(self.nodes)}a", f"v{len(self.nodes)}b"]
        sizes = self.constant(np.array([first, second]))
        self.nodes.append(self.helper.make_node("Split", [x, sizes], outs, axis=1))
        return tuple(outs)

    def constant(self, value) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy(value)
        return name


def numpy(value) -> np.ndarray:
    """A tensor or an array as an array."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


if __name__ == "__main__":
    main()
