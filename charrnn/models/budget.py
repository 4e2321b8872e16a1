"""Equal budgets: the largest hidden size with which a class has no more parameters than a bound."""

import inspect

import torch
from torch import nn

from charrnn.errors import InputError, check


def takes(kind, name: str) -> bool:
    """Whether a class takes a keyword argument."""
    parameters = inspect.signature(kind).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def largest_hidden_size(kind: type[nn.Module], parameters: int, vocab_size: int, **settings) -> int:
    """Return the largest ``hidden_size`` with at most this many parameters, by bisection.

    Args:
        kind: a class whose number of parameters grows with its argument ``hidden_size``.
        settings: further arguments of the class.

    Raises:
        InputError: the class takes no ``hidden_size``, or has more parameters with 1.
    """
    if not takes(kind, "hidden_size"):
        raise InputError(f"parameters={parameters}: {kind.__name__} takes no hidden_size to choose")

    def count(hidden_size: int) -> int:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = kind(vocab_size=vocab_size, hidden_size=hidden_size, **settings)
        return sum(p.numel() for p in model.parameters())

    fewest = count(1)
    check("parameters", parameters, parameters >= fewest, f"at least {fewest} for this model")
    low, high = 1, 2
    while high <= parameters and count(high) <= parameters:
        low, high = high, 2 * high
    while low + 1 < high:  # count(low) is within the bound, count(high) is not
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return low
