"""Memory that the kernels keep from step to step."""

import pytest
import torch

from charrnn.gru import build, native

MEGABYTES = 1 << 20  # float32 elements of four


@pytest.fixture(autouse=True)
def released():
    build.library().memory_release()
    yield
    build.library().memory_release()


def test_a_block_is_kept_until_the_last_tensor_on_it_is_gone():
    like = torch.empty(0)
    first = native.kept_empty(like, 4, MEGABYTES // 4)
    address, row = first.data_ptr(), first[1]
    assert first.shape == (4, MEGABYTES // 4) and address % 64 == 0
    first.fill_(7.0)
    del first
    second = native.kept_empty(like, MEGABYTES)
    second.zero_()
    assert second.data_ptr() != address and row.eq(7).all()
    del row
    assert native.kept_empty(like, MEGABYTES).data_ptr() == address
    assert native.kept_empty(like, MEGABYTES + 64).data_ptr() != address  # of another size


def test_blocks_that_are_not_used_are_freed():
    library, bytes = native.memory(), 4 * MEGABYTES
    library.memory_give(library.memory_take(bytes), bytes)
    assert library.memory_kept() == bytes
    for _ in range(300):  # of another size
        library.memory_give(library.memory_take(bytes // 2), bytes // 2)
    assert library.memory_kept() == bytes // 2
    library.memory_release()
    assert library.memory_kept() == 0


def test_float64_and_small_tensors():
    for dtype, count in ((torch.float64, MEGABYTES), (torch.float32, 5)):
        found = native.kept_empty(torch.empty(0, dtype=dtype), count)
        assert found.dtype == dtype and found.shape == (count,)


def test_gradients_twice_from_one_forward_pass():
    """What is saved for backward outlives it with retain_graph."""
    state = torch.zeros(1, 40, 100)
    weights = [torch.randn(300, 100, requires_grad=True) for _ in range(2)]
    weights += [torch.randn(300, requires_grad=True) for _ in range(2)]
    inputs = torch.randint(100, (40, 40))

    def run():
        return native.forward(inputs, None, state, [tuple(weights)], reset="after", gate="sigmoid")[
            0
        ].sum()

    output = run()
    expected = torch.autograd.grad(output, weights, retain_graph=True)
    torch.autograd.grad(run(), weights)
    assert all(map(torch.equal, torch.autograd.grad(output, weights), expected))
