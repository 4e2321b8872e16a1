"""Resets of the state inside a window, against a window for each step, in every backend.

T time steps, B rows, H hidden size, I input size, L layers.
"""

import pytest
import torch

from charrnn.gru import GRU

B, T, H, I, L = 4, 13, 9, 5, 2  # noqa: E741
VARIANTS = [("reference", "before"), ("reference", "after"), ("native", "before"),
            ("native", "after"), ("torch", "after")]  # fmt: skip


def with_gradients(run, gru, *inputs):
    """Outputs, final state, and all gradients, including those through the final state."""
    for tensor in [*gru.parameters(), *inputs]:
        tensor.grad = None
    outputs, state = run()
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(t.shape, generator=generator).double() for t in (outputs, state)]
    ((outputs * weights[0]).sum() + (state * weights[1]).sum()).backward()
    return [outputs, state, *(t.grad for t in [*gru.parameters(), *inputs])]


@pytest.mark.parametrize(("backend", "reset"), VARIANTS)
@pytest.mark.parametrize("chance", [0.0, 0.1, 1.0])
def test_resets_equal_single_steps(backend, reset, chance):
    torch.manual_seed(0)
    gru = GRU(I, H, L, reset=reset, backend=backend).double()
    x = torch.randn(T, B, I).double().requires_grad_()
    state = torch.randn(L, B, H).double().requires_grad_()
    resets = torch.rand(T, B) < chance

    def by_steps():
        h, outputs = state, []
        for t in range(T):
            h = h * ~resets[t][None, :, None]
            output, h = gru(x[t : t + 1], h)
            outputs.append(output)
        return torch.cat(outputs), h

    found = with_gradients(lambda: gru(x, state, resets=resets), gru, x, state)
    for a, b in zip(found, with_gradients(by_steps, gru, x, state)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
