"""Many characters on a GPU by one launch: draw one, take it in, draw the next.

B samples, V vocabulary size, H hidden size, L layers.

A step is a few kernels, and ``STEPS`` of them are a CUDA graph. Few samples take kernels that read
each weight once, in float32; many take the products of cuBLAS, of halves where
``torch.backends.cudnn.allow_tf32`` is true, else in float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from charrnn.gru.cuda import nvrtc, rows
from charrnn.gru.reference import input_gates

FEW = 8
"""Samples that the kernels for few of them take, as in ``decode.cu``."""
STEPS = 64
"""Characters of a graph."""


class Generator:
    """The texts of B samples, as :class:`charrnn.gru.generate.Generator` makes them on a CPU.

    Weights are copied: what is trained meanwhile does not show in a text.

    Args:
        inputs, table, weights, decoder, state, logits: as there, float32, on a GPU.
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
        self.before = reset == "before"
        device, (self.rows, self.size) = state.device, logits.shape
        count, _, hidden = state.shape
        wide = -(-hidden // 4) * 4  # vectors of four
        self.hidden, self.few = wide, self.rows <= FEW
        self.low = not self.few and torch.backends.cudnn.allow_tf32
        self.kernels = nvrtc.module(
            ("instructions.cuh", "draw.cuh", "decode.cu"),
            (("HARD", int(gate == "hard_sigmoid")),),
            rows.index_of(device),
        )
        gates = input_gates(inputs, table, weights[0][0], torch.zeros_like(weights[0][2]))[:, 0]
        self.table = widen(gates, hidden, wide, rows=False)
        self.layers = [
            (
                None if i == 0 else self._product(widen(w_ih, hidden, wide)),
                self._product(widen(w_hh, hidden, wide)),
                torch.stack([widen(b, hidden, wide) for b in (b_ih, b_hh)]),
            )
            for i, (w_ih, w_hh, b_ih, b_hh) in enumerate(weights)
        ]
        weight, self.bias = decoder[0].detach(), decoder[1].detach().clone()
        self.weight = self._product(F.pad(weight, (0, wide - hidden)).clone())
        # Two states, of which one is read while the other is written.
        self.states = torch.zeros(2, count, self.rows, wide, device=device)
        self.states[0, ..., :hidden] = state
        self.halves = self.states.half() if self.low else None
        self.reset, self.update = torch.empty(2, self.rows, wide, device=device)
        self.half_reset = self.reset.half() if self.low else None
        self.logits = logits.detach().clone(memory_format=torch.contiguous_format)
        self.uniforms = torch.zeros(STEPS, self.rows, dtype=torch.float64, device=device)
        self.drawn = torch.zeros(STEPS, self.rows, dtype=torch.int64, device=device)
        self.allowed = torch.ones(self.rows, self.size, dtype=torch.uint8, device=device)
        self.filters = torch.zeros(4, dtype=torch.float64, device=device)
        self.chances = torch.empty(self.rows, self.size, dtype=torch.float64, device=device)
        self.index = torch.zeros(self.rows, dtype=torch.int32, device=device)
        self.bad = torch.zeros(1, dtype=torch.int32, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(
        self,
        uniforms: Tensor,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        min_p: float | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Generate the next indices (N, B) from uniforms (N, B) float64; both are on the CPU.

        Raises FloatingPointError if logits are not finite.
        """
        values = [temperature, top_k or 0, top_p or 0.0, min_p or 0.0]
        self.filters.copy_(torch.tensor(values, dtype=torch.float64))
        if allowed is None:
            self.allowed.fill_(1)
        else:
            self.allowed.copy_(allowed.expand(self.allowed.shape))
        drawn = []
        for part in uniforms.split(STEPS):
            self.uniforms[: len(part)].copy_(part)
            if len(part) == STEPS and self.uniforms.is_cuda:
                self._replay()
            else:
                self._steps(len(part))
            drawn.append(self.drawn[: len(part)].cpu())
        if self.bad.item():
            raise FloatingPointError("logits are not finite")
        return torch.cat(drawn) if drawn else uniforms.long()

    def _replay(self) -> None:
        if self.graph is None:
            # What runs once outside loads libraries; what it changed is put back.
            kept = [t.clone() for t in (self.states, self.logits, self.index, self.bad)]
            halves = None if self.halves is None else self.halves.clone()
            self._steps(2)
            for tensor, value in zip((self.states, self.logits, self.index, self.bad), kept):
                tensor.copy_(value)
            if halves is not None:
                self.halves.copy_(halves)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._steps(STEPS)
        self.graph.replay()

    def _steps(self, count: int) -> None:
        """Draw and take in so many characters; the state is then in the first of the two."""
        for t in range(count):
            self.kernels.launch(
                "decode_draw", (self.rows,), self.logits, self.allowed, self.uniforms,
                self.filters, self.chances, self.index, self.drawn, self.bad, self.rows, self.size,
                t, block=32,
            )  # fmt: skip
            x = None
            for i in range(len(self.layers)):
                x = (self._few if self.few else self._many)(i, x, t % 2)
            self._logits(x)
        if count % 2:
            self.states[0].copy_(self.states[1])
            if self.low:
                self.halves[0].copy_(self.halves[1])

    def _few(self, i: int, x: Tensor | None, now: int) -> Tensor:
        w_ih, w_hh, bias = self.layers[i]
        h, following = self.states[now, i], self.states[1 - now, i]
        given = (x, self.table, self.index, w_ih, w_hh, bias, h)
        size, grid = (self.rows, self.hidden), (-(-self.hidden // 8),)
        if not self.before:
            self.kernels.launch("few_after", grid, *given, following, *size)
            return following
        self.kernels.launch("few_gates_before", grid, *given, self.reset, self.update, *size)
        self.kernels.launch(
            "few_candidate_before", grid, *given, self.reset, self.update, following, *size
        )
        return following

    def _many(self, i: int, x: Tensor | None, now: int) -> Tensor:
        w_ih, w_hh, bias = self.layers[i]
        states = self.halves if self.low else self.states
        h, following = self.states[now, i], self.states[1 - now, i]
        half = self.halves[1 - now, i] if self.low else None
        given = (None if x is None else self._mm(x, w_ih), self.table, self.index)
        size, grid = (self.rows, self.hidden), (-(-self.rows * self.hidden // 256),)
        if not self.before:
            sums = self._mm(states[now, i], w_hh)
            self.kernels.launch("many_after", grid, *given, sums, bias, h, following, half, *size)
        else:
            sums = self._mm(states[now, i], w_hh[: 2 * self.hidden])
            self.kernels.launch(
                "many_gates_before", grid, *given, sums, bias, h, self.reset, self.half_reset,
                self.update, *size,
            )  # fmt: skip
            reset = self.half_reset if self.low else self.reset
            sums = self._mm(reset, w_hh[2 * self.hidden :])
            self.kernels.launch(
                "many_candidate_before", grid, *given, sums, bias, h, self.update, following, half,
                *size,
            )  # fmt: skip
        return half if self.low else following

    def _logits(self, x: Tensor) -> None:
        if self.few:
            size = (self.rows, self.size, self.hidden)
            grid = (-(-self.size // 8),)
            self.kernels.launch("few_logits", grid, x, self.weight, self.bias, self.logits, *size)
        else:
            torch.add(self._mm(x, self.weight), self.bias, out=self.logits)

    def _product(self, weight: Tensor) -> Tensor:
        """A weight in the type in which its products are made."""
        return weight.half() if self.low else weight

    def _mm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rows.matmul(x, weight.t()) if self.low else torch.mm(x, weight.t())


def widen(tensor: Tensor, hidden: int, wide: int, rows: bool = True) -> Tensor:
    """A copy of a weight (3H, H), a bias (3H) or a table (V, 3H) with zeros for more units."""
    tensor, more = tensor.detach(), wide - hidden
    if not rows:
        return F.pad(tensor.reshape(-1, 3, hidden), (0, more)).flatten(1).clone()
    if tensor.dim() == 1:
        return F.pad(tensor.view(3, hidden), (0, more)).flatten().clone()
    return F.pad(tensor.reshape(3, hidden, -1), (0, more, 0, more)).flatten(0, 1).clone()
