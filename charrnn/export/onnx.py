"""ONNX: one time step of a model as a graph, built operation by operation.

``torch.onnx.export`` computes the same (torch 2.13), but its current exporter needs another package
(onnxscript), takes 2 s and prints warnings; its older one is deprecated and makes five times as
many nodes.

B rows, L layers, I input size, H hidden size, V vocabulary size.
"""

import json
from typing import BinaryIO

import numpy as np
from torch import Tensor, nn

from charrnn import checkpoint
from charrnn.errors import InputError
from charrnn.export.extra import import_extra
from charrnn.models import GRUEncode, GRUResize

OPSET = 17


def write(model: nn.Module, description: dict, file: BinaryIO) -> None:
    """Write a graph from index (B) and state (L, B, H) to logits (B, V) and next_state (L, B, H).

    It consists of matrix products and element-wise operations, which every runtime supports. The
    description is in the metadata, as JSON under the key "charrnn".
    """
    if type(model) not in (GRUEncode, GRUResize):
        raise InputError(
            f"to=onnx: {type(model).__name__} has no ONNX form, which GRUEncode and GRUResize have;"
            " export it to torch or safetensors"
        )
    onnx = import_extra("onnx")
    graph = Graph(onnx.helper)
    layers, hidden = model.gru.num_layers, model.gru.hidden_size
    dtype = onnx.helper.np_dtype_to_tensor_dtype(to_numpy(model.decoder.weight).dtype)
    x = "index"
    if isinstance(model, GRUEncode):
        row = graph.add("Gather", graph.constant(model.embed.weight), x)
        x = graph.add("Tanh", graph.add("Add", row, graph.constant(model.embed.bias)))
    states = []
    for layer, weights in enumerate(model.gru.all_weights):
        h = graph.add("Gather", "state", graph.constant(np.array(layer)), axis=0)
        x = add_gru_step(graph, x, h, weights, model.gru.reset, model.gru.gate)
        states.append(graph.add("Unsqueeze", x, graph.constant(np.array([0]))))
    decoder = graph.constant(model.decoder.weight), graph.constant(model.decoder.bias)
    graph.add("Gemm", x, *decoder, transB=1, out="logits")
    graph.add("Concat", *states, axis=0, out="next_state")

    def value(name: str, kind: int, *shape: str | int):
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    step = onnx.helper.make_graph(
        graph.nodes, "charrnn_step",
        [value("index", onnx.TensorProto.INT64, "B"), value("state", dtype, layers, "B", hidden)],
        [value("logits", dtype, "B", model.decoder.out_features),
         value("next_state", dtype, layers, "B", hidden)],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    proto = onnx.helper.make_model(step, opset_imports=opsets, ir_version=8)
    onnx.helper.set_model_props(proto, {checkpoint.METADATA: json.dumps(description)})
    onnx.checker.check_model(proto)
    file.write(proto.SerializeToString())


def add_gru_step(
    graph: "Graph", x: str, h: str, weights: tuple[Tensor, ...], reset: str, gate: str
) -> str:
    """Add one layer's step and return the name of its new state (B, H).

    Args:
        x: the input, (B, I), or "index" (B) for a one-hot input.
        h: the state, (B, H).
        weights: weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H), bias_hh (3H).
        reset, gate: as in :mod:`charrnn.gru.reference`.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = (to_numpy(w) for w in weights)
    hidden = weight_hh.shape[1]
    if x == "index":  # the product with a one-hot vector is a column
        inputs = graph.add("Gather", graph.constant(np.ascontiguousarray(weight_ih.T)), x)
        inputs = graph.add("Add", inputs, graph.constant(bias_ih))
    else:
        inputs = graph.add("Gemm", x, graph.constant(weight_ih), graph.constant(bias_ih), transB=1)
    x_rz, x_n = graph.split(inputs, 2 * hidden, hidden)

    def product(state: str, rows: slice) -> str:
        weight, bias = graph.constant(weight_hh[rows]), graph.constant(bias_hh[rows])
        return graph.add("Gemm", state, weight, bias, transB=1)

    rz = graph.add("Add", x_rz, product(h, slice(0, 2 * hidden)))
    # ONNX's HardSigmoid is max(0, min(1, alpha a + 0.5)).
    rz = graph.add("Sigmoid", rz) if gate == "sigmoid" else graph.add("HardSigmoid", rz, alpha=0.2)
    r, z = graph.split(rz, hidden, hidden)
    rows = slice(2 * hidden, None)
    if reset == "after":
        recurrent = graph.add("Mul", r, product(h, rows))
    else:
        recurrent = product(graph.add("Mul", r, h), rows)
    n = graph.add("Tanh", graph.add("Add", x_n, recurrent))
    return graph.add("Add", n, graph.add("Mul", z, graph.add("Sub", h, n)))  # (1 - z) n + z h


class Graph:
    """Nodes in the order of computation, and the constants that they use."""

    def __init__(self, helper):
        self.helper, self.nodes, self.constants = helper, [], {}

    def add(self, operation: str, *inputs: str, out: str | None = None, **attributes) -> str:
        """Add a node and return the name of its output."""
        out = out or f"v{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operation, inputs, [out], **attributes))
        return out

    def split(self, x: str, first: int, second: int) -> tuple[str, str]:
        """Split (B, first + second) into its two parts."""
        outs = [f"v{len(self.nodes)}a", f"v{len(self.nodes)}b"]
        sizes = self.constant(np.array([first, second]))
        self.nodes.append(self.helper.make_node("Split", [x, sizes], outs, axis=1))
        return tuple(outs)

    def constant(self, value: Tensor | np.ndarray) -> str:
        """Add a constant and return its name."""
        name = f"c{len(self.constants)}"
        self.constants[name] = to_numpy(value)
        return name


def to_numpy(value: Tensor | np.ndarray) -> np.ndarray:
    """Return a tensor or an array as an array."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
