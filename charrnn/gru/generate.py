"""Sampling by the kernels: many characters of a text in one call.

N characters, B samples, V vocabulary size, I input size, H hidden size, L layers.
"""

import ctypes
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charrnn.errors import InputError
from charrnn.gru import native
from charrnn.gru.cuda import decode
from charrnn.gru.hooks import has_hooks, is_plain_linear
from charrnn.gru.module import GRU
from charrnn.gru.reference import input_gates


@dataclass(frozen=True)
class Guard:
    """No n-gram is drawn that is among the last characters, unless that excludes all characters.

    Attributes:
        n: its length.
        window: so many characters before each are looked through.
        recent: (B, R) int64, the last characters before the first one.
    """

    n: int
    window: int
    recent: Tensor


class Generator:
    """Draws the characters of B samples; the weights are packed once, in the constructor.

    Args:
        inputs, table: features of all V characters, as for ``GRU.forward``: (V, 1, I), or indices
            (V, 1) and a table.
        weights: of each layer, as in :mod:`charrnn.gru.reference`, float32 or float64.
        decoder: weight (V, H) and bias (V) of the output layer.
        state: (L, B, H) after the prompt.
        logits: (B, V) of the first character.
        precision: bits of the weights of products, since a step of one sample is bound by reading
            them. With 16 they are rounded to bfloat16, and for B = 1 read as such; states and sums
            are float32. With 8 they are whole numbers of +-127 times a scale for each row of a
            weight; states are rounded to at least 12 bits for products, whose sums are exact.
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
        precision: int = 32,
    ):
        gates = input_gates(inputs, table, weights[0][0], weights[0][2])[:, 0].contiguous()
        # Copies, as the packed weights are: later training steps do not change the text.
        tensors = [copy(tensor) for layer in weights for tensor in layer]
        weight, bias = map(copy, decoder)
        states = torch.stack([state, state])
        self.logits = copy(logits)
        self._kept = gates, tensors[2::4], tensors[3::4], bias, states  # the sampler points to them
        pointers = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        self.sampler = ctypes.c_void_p()
        native.call(
            "sampler_open", gates, weight, bias, states, ctypes.addressof(pointers),
            ctypes.addressof(self.sampler), *self.logits.shape, state.size(2), len(weights),
            reset == "before", gate == "hard_sigmoid", precision,
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
        guard: Guard | None = None,
    ) -> Tensor:
        """Return the indices (N, B) of the next characters.

        Args:
            uniforms: random numbers in [0, 1), (N, B) float64.
            allowed: (V) or (B, V) bool, the characters that may be drawn; the other filters are
                those of ``charrnn.generation``.
            guard: what must not repeat; None where everything may.

        Raises:
            FloatingPointError: logits are not finite.
        """
        uniforms = uniforms.contiguous()
        if allowed is not None:
            allowed = allowed.expand(self.logits.shape).contiguous()
        drawn = torch.empty(uniforms.shape, dtype=torch.int64)
        recent = guard and guard.recent.contiguous()
        guarded = (recent.size(1), guard.n, guard.window) if guard else (0, 0, 0)
        native.call(
            "sampler_run", self.logits, self.sampler.value, uniforms, allowed, recent, drawn,
            len(drawn), temperature, min(top_k or 0, self.logits.size(1)), top_p or 0.0,
            min_p or 0.0, *guarded,
        )  # fmt: skip
        return drawn


def supports_model(model: nn.Module) -> bool:
    """Whether :class:`Generator` computes exactly what a model computes, on its backend.

    This holds for the classes that set ``plain_gru`` in their own body (a subclass may compute
    something else, so it does not inherit the answer), if no part of the model was replaced,
    parametrized or hooked, and if its parameters are all float32 or all float64.
    """
    if not vars(type(model)).get("plain_gru") or type(model.gru) is not GRU:
        return False
    if not is_plain_linear(model.decoder) or has_hooks(model):
        return False
    types = {parameter.dtype for parameter in model.parameters()}
    uniform = types <= {torch.float32} or types <= {torch.float64}
    device = model.decoder.weight.device
    if device.type == "cuda":  # whose kernels sample whatever the layers are computed by
        return types <= {torch.float32} and model.gru.fuses_loss(device)
    return uniform and model.gru.choose_backend(device) == "native"


def generator_for(
    model: nn.Module, logits: Tensor, state: Tensor, precision: int = 32
) -> Generator:
    """Return a generator for a model that :func:`supports_model` accepts.

    Args:
        logits: (B, V) of the first character.
        state: (L, B, H) after the prompt.
        precision: see :class:`Generator`.

    Raises:
        InputError: precision is not 32, and the model is on a GPU or in float64.
    """
    if precision != 32 and (state.is_cuda or state.dtype != torch.float32):
        raise InputError(f"precision={precision}: for float32 models on a CPU; leave it at 32")
    settings = {"reset": model.gru.reset, "gate": model.gru.gate}
    if precision != 32:
        settings["precision"] = precision
    characters = torch.arange(model.decoder.out_features, device=state.device)[:, None]
    decoder = model.decoder.weight, model.decoder.bias
    generator = decode.Generator if state.is_cuda else Generator
    state, logits = (tensor.to(decoder[0].dtype) for tensor in (state, logits))
    with torch.autocast(
        state.device.type, enabled=False
    ):  # the caller's, of which kernels know not
        return generator(
            *model.features(characters), model.gru.all_weights, decoder, state, logits, **settings
        )


def copy(tensor: Tensor) -> Tensor:
    """Return a contiguous copy of a tensor."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)
