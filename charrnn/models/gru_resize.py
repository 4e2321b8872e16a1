"""GRUResize: GRU layers over one-hot vectors, without an input layer.

T time steps, B rows, V vocabulary size, H hidden size.
"""

from torch import Tensor

from charrnn.models.char_model import CharModel


class GRUResize(CharModel):
    """GRU layers, the first with a weight_ih_l0 of (3H, V); arguments of :class:`CharModel`."""

    plain_gru = True  # see charrnn.gru.generate.supports_model
    VOCAB_AXES = CharModel.VOCAB_AXES | {"gru.weight_ih_l0": 1}

    def add_input_layer(self, vocab_size: int, hidden_size: int) -> int:
        return vocab_size

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the indices; layer 0 gathers columns of its weight instead of one-hot products."""
        return inputs, None
