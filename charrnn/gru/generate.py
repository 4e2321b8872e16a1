"""Many characters by one call of the kernels: draw one, take it in, draw the next.

B samples, V vocabulary size, H hidden size, L layers.
"""

import ctypes
import weakref

import torch
from torch import Tensor

from charrnn.gru import native
from charrnn.gru.reference import input_gates


class Generator:
    """The text of B samples, a piece at a time; weights are packed once, when it is made.

    Args:
        inputs, table: features of all V characters, as ``GRU.forward`` takes them, (V, 1, I), or
            their indices (V, 1).
        weights: of each layer, as in :mod:`charrnn.gru.reference`, in float32 or float64.
        decoder: weight (V, H) and bias (V) of the last linear layer.
        state: (L, B, H) after the prompt.
        logits: (B, V) of the first character.
    """

    def __init__(
        self,
        inputs: Tensor,
        table: Tensor | None,
        weights: list[tuple[Tensor, Tensor, Tensor, Tensor]],
        decoder: tuple[Tensor, Tensor],
        state: Tensor,
        logits: Tensor,
        *,
        reset: str,
        gate: str,
    ):
        gates = input_gates(inputs, table, weights[0][0], weights[0][2])[:, 0].contiguous()
        # Copies, as packed weights are: what is trained meanwhile does not show in a text.
        tensors = [dense(tensor) for layer in weights for tensor in layer]
        weight, bias = map(dense, decoder)
        states = torch.stack([state, state])
        self.logits = dense(logits)
        self.used = gates, tensors[2::4], tensors[3::4], bias, states  # by the sampler
        pointers = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        self.sampler = ctypes.c_void_p()
        native.call(
            "sampler_open", gates, weight, bias, states, ctypes.addressof(pointers),
            ctypes.addressof(self.sampler), *self.logits.shape, state.size(2), len(weights),
            reset == "before", gate == "hard_sigmoid",
        )  # fmt: skip
        weakref.finalize(self, native.function("sampler_close", gates.dtype), self.sampler)

    def __call__(
        self,
        uniforms: Tensor,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        min_p: float | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """The next characters' indices (N, B), from numbers in [0, 1), (N, B) float64.

        Filters are those of ``decoding.probabilities``. Raises FloatingPointError where logits are
        not finite.
        """
        uniforms = uniforms.contiguous()
        if allowed is not None:
            allowed = allowed.expand(self.logits.shape).contiguous()
        drawn = torch.empty(uniforms.shape, dtype=torch.int64)
        native.call(
            "sampler_run", self.logits, self.sampler.value, uniforms, allowed, drawn, len(drawn),
            temperature, min(top_k or 0, self.logits.size(1)), top_p or 0.0, min_p or 0.0,
        )  # fmt: skip
        return drawn


def dense(tensor: Tensor) -> Tensor:
    """A copy, row-major."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)
