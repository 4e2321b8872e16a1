"""The sizes of the training, validation and test parts."""

import pytest

from charrnn import InputError
from charrnn.data.split import split_sizes


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ((1000, None, None, 0), (900, 100, 0)),
        ((50_000_000, None, None, 0), (45_000_000, 5_000_000, 0)),
        ((10**11, None, None, 0), (10**11 - 5_000_000, 5_000_000, 0)),
        ((1000, None, None, 0.05), (900, 50, 50)),
        ((10**11, None, None, 10**9), (99 * 10**9 - 5_000_000, 5_000_000, 10**9)),
        ((10**11, 0.9, None, 0), (9 * 10**10, 10**10, 0)),  # explicit settings are not
        ((10**11, None, 0.1, 0), (9 * 10**10, 10**10, 0)),
    ],
)
def test_default_validation_size_is_bounded(settings, sizes):
    assert split_sizes(*settings) == sizes


@pytest.mark.parametrize(
    "bad",
    [{"valid_size": -1}, {"valid_size": 1.0}, {"valid_size": 100}, {"test_size": float("nan")},
     {"test_size": 100}, {"test_size": 99}, {"test_size": 60, "valid_size": 40}],
    ids=str,
)  # fmt: skip
def test_bad_sizes_are_named(bad):
    name = list(bad)[-1]
    with pytest.raises(InputError, match=f"^{name}={bad[name]} must be"):
        split_sizes(100, 0.9, bad.get("valid_size"), bad.get("test_size", 0))
