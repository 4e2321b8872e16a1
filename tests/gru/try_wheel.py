"""The kernels of an installed wheel, where there is no compiler: python tests/gru/try_wheel.py.

cibuildwheel runs it (``tool.cibuildwheel`` in pyproject.toml), and so does a slow test.
"""

import time

import torch

from charrnn import GRUEncode, generation
from charrnn.data.charset import Charset
from charrnn.gru import build

file = build.find()
assert file.parent == build.SHIPPED, f"{file} is not of the wheel"
charset = Charset("\nabc")
model = GRUEncode(len(charset), 32, 2, backend="native")
inputs, targets = torch.randint(len(charset), (2, 20, 4))
loss, _ = model.loss(inputs, targets, model.initial_state(4))
model.gru.backend = "reference"
expected, _ = model.loss(inputs, targets, model.initial_state(4))
torch.testing.assert_close(loss, expected)
loss.backward()
model.gru.backend = "native"
begin = time.perf_counter()
texts = list(generation.generate_texts(model.eval(), charset, "a", 1000, seed=1))
print(f"{file.name}: {len(texts)} parts in {time.perf_counter() - begin:.2f} s")
