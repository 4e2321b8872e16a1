"""One layer by the persistent kernels: a launch for each span of time steps in each direction.

T time steps, B rows, P of them padded to sixteens, H hidden size, I input size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from charrnn.gru.cuda import nvrtc
from charrnn.gru.cuda.plan import ROWS, Plan, kernels
from charrnn.gru.cuda.rows import empty, index_of, mailbox, matmul


class Kept(NamedTuple):
    """What the forward pass of a layer leaves for backward.

    Attributes:
        x: (T, B, H) halves that came in, of layers above the first; mask: of the dropout on them.
        w_ih: (3H, I), halves above the first layer; turned: (H, 3H), W_hh transposed, halves.
        states: (T + 1, P, H) halves, the first one given.
        saved: (T, P, H / 2, 4), eight halves: r, z, n, q of two units, in the kernels' own order.
        products: (T, P, H) halves, r h, with the reset before the product.
    """

    x: Tensor | None
    mask: Tensor | None
    w_ih: Tensor
    turned: Tensor
    states: Tensor
    saved: Tensor | None
    products: Tensor | None


class Forward:
    """The forward pass of a layer, span after span.

    Args:
        weights: W_hh in half precision, b_ih and b_hh.
        state: (B, H), the first one.
        final: (B, H), the state after the last span so far.
        training: whether what backward needs is kept.
        last: whether outputs are made in float32, (T, B, H).
    """

    def __init__(
        self,
        plan: Plan,
        weights: list[Tensor],
        state: Tensor,
        final: Tensor,
        steps: int,
        training: bool,
        last: bool,
    ):
        rows, hidden = state.size(0), plan.cut.hidden
        wide, shared = -(-rows // ROWS) * ROWS, not plan.cut.small
        self.launch, self.state, self.final = plan.forward, state.contiguous(), final
        self.w_hh, self.b_ih, self.b_hh = (tensor.contiguous() for tensor in weights)
        self.states = mailbox(state, steps + 1, wide, hidden, fill=shared)
        if rows < wide:
            self.states[0].zero_()
        self.states[0, :rows].copy_(state)
        before = plan.cut.before
        self.products = mailbox(state, steps, wide, hidden, fill=shared) if before else None
        self.saved = empty(state, steps, wide, hidden // 2, 4) if training else None
        # Backward's mailbox: the kernel fills it while it waits, which takes no time.
        columns = columns_of(plan)
        filled = training and shared
        self.d_gates = mailbox(state, steps, wide, columns, fill=False) if filled else None
        self.outputs = empty(state, steps, rows, hidden) if last else None

    def __call__(self, gates: Tensor, index: Tensor | None, span: slice) -> None:
        """Compute a span of steps from its input products, of as many steps, (., B, 3H).

        With indices, (., B), input products are rows (V + 1, 3H), of which the last is NaN.
        """
        steps, rows = gates.shape[:2] if index is None else index.shape
        launch, first = self.launch, span.start == 0
        kernels(launch.cut, index_of(gates.device)).launch(
            "gru_forward", (launch.grid,), gates.contiguous(), self.w_hh, self.b_ih, self.b_hh,
            self.state if first else self.final, self.states[span.start : span.stop + 1],
            part(self.products, span), part(self.outputs, span), part(self.saved, span),
            part(self.d_gates, span), self.final, index, len(gates) - 1, steps, rows,
            launch.pause, nvrtc.status(), shared=launch.shared,
            cooperative=not launch.cut.small,
        )  # fmt: skip

    def kept(
        self, x: Tensor | None, mask: Tensor | None, w_ih: Tensor, turned: Tensor | None
    ) -> Kept:
        return Kept(x, mask, w_ih, turned, self.states, self.saved, self.products)


class Backward:
    """The backward pass of a layer, from the last span to the first.

    Gradients at the gates' sums are halves times a power of two, of which scale[1] becomes the
    inverse: ``d_gates`` (T, P, 4H) or (T, P, 3H). Columns are q, r, z, n, or with the reset before
    the product r, z, n; rows beyond B are zero.

    Args:
        d_gates: the mailbox that forward has filled; None to make one.
        d_final: (B, H), or None for zeros.
        d_state: (B, H), the gradient at the state before the last span so far.
        scale: two numbers; the first is the largest gradient.
        spans: how many of them there will be.
    """

    def __init__(
        self,
        plan: Plan,
        kept: Kept,
        d_gates: Tensor | None,
        d_final: Tensor | None,
        d_state: Tensor,
        scale: Tensor,
        spans: int,
    ):
        self.launch, self.kept, self.scale = plan.backward, kept, scale
        self.d_final, self.d_state = d_final, d_state
        self.before, self.hidden = plan.cut.before, plan.cut.hidden
        steps, wide = kept.states.size(0) - 1, kept.states.size(1)
        columns = columns_of(plan)
        if d_gates is None:
            d_gates = mailbox(d_state, steps, wide, columns, fill=not plan.cut.small)
        self.d_gates = d_gates
        self.sums = empty(d_state, spans, plan.backward.parts, columns)
        self.left = spans

    def __call__(self, d_y: Tensor, factor: Tensor | None, span: slice) -> None:
        """Compute a span of steps from the gradient at its outputs, of as many steps, (., B, H).

        It is to be multiplied by the number factor.
        """
        steps, rows, _ = d_y.shape
        launch, last = self.launch, span.stop == len(self.d_gates)
        self.left -= 1
        kernels(launch.cut, index_of(d_y.device)).launch(
            "gru_backward", (launch.grid,), d_y, factor, self.d_final if last else self.d_state,
            self.kept.turned, self.kept.saved[span], self.kept.states[span], self.d_gates[span],
            self.d_state, self.sums[self.left], self.scale, steps, rows, launch.pause,
            nvrtc.status(), shared=launch.shared, cooperative=not launch.cut.small,
        )  # fmt: skip

    def outer_gates(self) -> Tensor:
        """Gradients at W_ih x, (T, P, 3H): r, z, n."""
        return self.d_gates[..., -3 * self.hidden :]

    def outer(self, rows: int, span: slice = slice(None)) -> Tensor:
        """The same of a span and of rows that are there, one after the other, (N, 3H)."""
        return self.outer_gates()[span, :rows].flatten(0, 1)

    def products(self) -> tuple[Tensor, Tensor]:
        """Sums over all steps: of the gates' gradients with states, (3H, H), and partial ones of
        themselves, (S, 4H) or (S, 3H), in the gates' own order and with their power of two.
        """
        flat, states = self.d_gates.flatten(0, 1), self.kept.states[:-1].flatten(0, 1)
        made = torch.empty(3 * self.hidden, self.hidden, device=flat.device)
        if self.before:
            gates, inner = 2 * self.hidden, self.kept.products.flatten(0, 1)
            matmul(flat[:, :gates].t(), states, made[:gates])
            matmul(flat[:, gates:].t(), inner, made[gates:])
        else:
            matmul(flat[:, : 3 * self.hidden].t(), states, made)
        return made, self.sums.flatten(0, 1)


def columns_of(plan: Plan) -> int:
    """How many gradients of gates a row has."""
    return (3 if plan.cut.before else 4) * plan.cut.hidden


def part(tensor: Tensor | None, span: slice) -> Tensor | None:
    """The steps of a span; None of None."""
    return None if tensor is None else tensor[span]
