"""The ONNX graph against the model, step by step, in onnxruntime."""

import json

import numpy as np
import torch
from export_models import saved, variants

from charrnn.export import export


@variants
def test_steps_match_those_of_the_model(tmp_path, kind, reset, gate):
    import onnxruntime

    model, charset, file = saved(tmp_path, kind, reset, gate)
    out = export(file, "onnx")
    assert out == tmp_path / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(out, options, providers=["CPUExecutionProvider"])
    names = [
        [(v.name, v.shape) for v in side()] for side in (session.get_inputs, session.get_outputs)
    ]
    size = len(charset)
    assert names == [
        [("index", ["B"]), ("state", [3, "B", 5])],
        [("logits", ["B", size]), ("next_state", [3, "B", 5])],
    ]
    inputs = torch.randint(0, size, (7, 3))
    state = torch.randn(3, 3, 5)
    expected, final = model(inputs, state)
    state = state.numpy()
    for index, expected_logits in zip(inputs.numpy(), expected):
        logits, state = session.run(None, {"index": index, "state": state})
        np.testing.assert_allclose(logits, expected_logits.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state, final.detach().numpy(), rtol=1e-4, atol=1e-5)
    (metadata,) = [session.get_modelmeta().custom_metadata_map]
    assert json.loads(metadata["charrnn"])["charset"] == charset.state_dict()
