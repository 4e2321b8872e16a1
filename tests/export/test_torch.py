"""The torch export: its tensors fit the modules of torch."""

import errno
import io

import pytest
import torch
from export_models import saved

from charrnn import GRUEncode, GRUResize
from charrnn.export import export


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
def test_weights_fit_the_modules_of_torch(tmp_path, kind):
    model, _, file = saved(tmp_path, kind, "after", "sigmoid")
    plain = torch.load(export(file, "torch"), weights_only=True)
    size = len(plain["charset"]["characters"]) + 1
    gru = torch.nn.GRU(5 if kind is GRUEncode else size, 5, 3)
    gru.load_state_dict(plain["gru"])
    decoder = torch.nn.Linear(5, size)
    decoder.load_state_dict(plain["decoder"])
    indices, state = torch.randint(0, size, (7, 3)), torch.randn(3, 3, 5)
    inputs = torch.nn.functional.one_hot(indices, size).float()
    if kind is GRUEncode:
        inputs = torch.tanh(inputs @ plain["embed"]["weight"] + plain["embed"]["bias"])
    output, final = gru(inputs, state)
    for a, b in zip((decoder(output), final), model(indices, state)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    """In the middle of the archive too, where the zip writer raises a RuntimeError."""
    from charrnn.export import torch as writer

    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() > 3000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    model = GRUEncode(9, 16)
    with pytest.raises(OSError, match="No space left"):
        writer.write(model, {"format": 1}, Full())
