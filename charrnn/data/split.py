"""The split of a corpus: how many characters are for training, validation and test."""

from charrnn.errors import check

MAX_VALIDATION = 5_000_000
"""Maximum number of validation characters by default: every round reads all of them."""


def split_sizes(
    characters: int,
    train_fraction: float | None,
    valid_size: int | float | None,
    test_size: int | float,
) -> tuple[int, int, int]:
    """Return how many characters are for training, validation and test, in this order.

    The other arguments are settings of :class:`charrnn.data.datamodule.CharDataModule`.

    Raises:
        InputError: a size is out of range, or no character would be left for training.
    """

    def count(name: str, size: int | float) -> int:
        whole = isinstance(size, int)
        ok = size >= 0 if whole else 0 <= size < 1
        check(name, size, ok, "a number of characters, or a share of all below 1")
        return size if whole else int(characters * size)

    test = count("test_size", test_size)
    rest = characters - test
    if valid_size is not None:
        train = rest - count("valid_size", valid_size)
    elif train_fraction == 1:
        train = rest
    else:  # at least one character for each, if there are two
        part = int(characters * (0.9 if train_fraction is None else train_fraction))
        train = min(max(1, part), rest - 1)
        if train_fraction is None:
            train = max(train, rest - MAX_VALIDATION)
    setting = ("test_size", test_size) if valid_size in (None, 0) else ("valid_size", valid_size)
    check(*setting, train > 0, f"less, so that some of the {characters:,} characters train")
    return train, rest - train, test
