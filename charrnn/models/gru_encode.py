"""GRUEncode: a tanh input layer, then GRU layers; the default model of the 2016 program.

T time steps, B rows, V vocabulary size, H hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charrnn.models.char_model import CharModel, init_uniform


class GRUEncode(CharModel):
    """A tanh layer over the characters, then GRU layers; arguments of :class:`CharModel`."""

    plain_gru = True  # see charrnn.gru.generate.supports_model
    VOCAB_AXES = CharModel.VOCAB_AXES | {"embed.weight": 0}

    def add_input_layer(self, vocab_size: int, hidden_size: int) -> int:
        self.embed = Embed(vocab_size, hidden_size)
        return hidden_size

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute a row per character of the vocabulary, or per input, whichever is less."""
        weight, bias = self.embed()  # called, for what prunes or normalizes them does so then
        if weight.size(0) < inputs.numel():
            device = weight.device
            if device.type == "cpu" and self.gru.choose_backend(device) == "native":
                from charrnn.gru.table import tanh_table

                return inputs, tanh_table(weight, bias)
            if device.type == "cuda" and weight.dtype == bias.dtype == torch.float32:
                if self.gru.choose_backend(device, inputs.size(1)) == "native":
                    from charrnn.gru.cuda.table import tanh_table

                    return inputs, tanh_table(weight, bias)
            return inputs, torch.tanh(weight + bias)
        return torch.tanh(F.embedding(inputs, weight) + bias), None

    def table_parts(self, inputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if getattr(self.features, "__func__", None) is not GRUEncode.features:
            return super().table_parts(inputs)
        weight, bias = self.embed()
        if weight.size(0) < inputs.numel():
            return inputs, weight, bias
        return torch.tanh(F.embedding(inputs, weight) + bias), None, None


class Embed(nn.Module):
    """The parameters of the input layer tanh(E[index] + a): weight E (V, H) and bias a (H)."""

    def __init__(self, vocab_size: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        init_uniform(self.weight, vocab_size)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias
