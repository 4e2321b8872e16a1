"""What surrounds the layers on a GPU: sums by index, the largest number, the input layer's table.

On a CPU through the emulator, and on a GPU if there is one.
"""

import pytest
import torch

from charrnn.gru.cuda import rows
from charrnn.gru.cuda.table import tanh_table

pytestmark = pytest.mark.usefixtures("cuda_full_of_nan")


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 5), (2, 17, 97), (5, 3, 600), (1, 2, 1030)])
def test_sums_by_index(device, size, product, monkeypatch):
    """An index out of range, and padded rows, are summed nowhere."""
    (steps, count, vocab), wide = size, 32
    torch.manual_seed(vocab)
    if product:
        monkeypatch.setattr(rows, "LARGEST_ONE_HOT", 1 << 20)
    gates = torch.randn(steps, wide, 64).half()
    gates[:, count:] = 0
    inputs = torch.randint(vocab, (count, steps)).t()
    inputs[-1, -1], inputs[0, 0] = vocab, -1 if steps > 1 else vocab
    scale = torch.tensor([torch.nan, 2.0**20])
    right = (inputs >= 0) & (inputs < vocab)
    expected = torch.zeros(vocab, 48, dtype=torch.float64)
    expected.index_add_(0, inputs[right], gates[:, :count, 16:][right].double() * 2**20)
    given = [tensor.to(device) for tensor in (gates[..., 16:], inputs, scale)]
    hot = rows.one_hot(given[1], wide, vocab) if product else None
    found = rows.sum_rows(given[0], given[1], vocab, given[2], hot)
    assert found.shape == expected.shape and found.is_contiguous()
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-6, atol=1)


def test_large_vocabularies_have_no_one_hot_rows(device):
    inputs = torch.zeros(1, 1, dtype=torch.int64, device=device)
    assert rows.one_hot(inputs, 16, rows.LARGEST_ONE_HOT).shape == (16, rows.LARGEST_ONE_HOT)
    assert rows.one_hot(inputs, 16, rows.LARGEST_ONE_HOT + 1) is None


@pytest.mark.parametrize("begin", [0, 1, 4])
@pytest.mark.parametrize("count", [1, 7, 4096, 9001])
def test_largest(device, count, begin):
    torch.manual_seed(count)
    x = torch.randn(begin + count, device=device)[begin:]
    y, factor = -3 * torch.rand(count % 11, device=device), torch.full((2,), -4.0, device=device)
    scale = torch.full((2,), torch.nan, device=device)
    for by in (None, factor):
        for more in (None, y):
            parts = [x if by is None else x * by[0], *([] if more is None else [more])]
            rows.largest(scale, x, by, more)
            assert scale[0] == torch.cat(parts).abs().max() and scale[1].isnan()
    for bad in (torch.inf, torch.nan):
        for tensor in (x, y):
            if tensor.numel():
                tensor[-1] = bad
                rows.largest(scale, x, factor, y)
                assert scale[0].isnan() if bad != torch.inf else scale[0] == bad
                tensor[-1] = 0


@pytest.mark.parametrize("size", [(1, 1), (5, 33), (97, 40), (600, 3)])
def test_table(device, size):
    torch.manual_seed(0)
    given = torch.randn(size), torch.randn(size[1])
    leaves = [tensor.to(device).requires_grad_() for tensor in given]
    exact = [tensor.double().requires_grad_() for tensor in given]
    found, expected = tanh_table(*leaves), torch.tanh(exact[0] + exact[1])
    grad = torch.randn(size)
    grads = torch.autograd.grad(found * 1, leaves, grad.to(device))
    for a, b in zip(
        (found, *grads), (expected, *torch.autograd.grad(expected, exact, grad.double()))
    ):
        torch.testing.assert_close(a.cpu().double(), b, rtol=1e-5, atol=1e-5)
