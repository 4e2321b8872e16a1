"""``trainer.precision=auto``: measures whether bf16-mixed is faster than 32-true on a CPU.

T time steps, B rows, V vocabulary size.
"""

import copy
import statistics
import time

import torch
from torch import nn

from charrnn.gru import bf16
from charrnn.models import contract
from charrnn.models.state import detach

LEAST_GAIN = 1.1
"""Less is not worth the rounding."""
SECONDS = 1.5
"""Of measuring; large windows take longer, at least two of each precision."""


def choose_precision(model: nn.Module, vocab_size: int, rows: int, steps: int) -> tuple[str, str]:
    """Return "bf16-mixed" or "32-true", and why in a few words.

    Trains a copy of the model on random windows in both precisions in turns, without an optimizer.
    The state of the random number generator stays.

    Args:
        vocab_size: V.
        rows, steps: B and T.
    """
    if why := bf16.why_not():
        return "32-true", why
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        model = copy.deepcopy(model)
        inputs, targets = torch.randint(vocab_size, (2, steps, rows))
        state = contract.initial_state(model, rows)
        parameters = [p for p in model.parameters() if p.requires_grad]

        def window(is_mixed: bool) -> float:
            nonlocal state
            begin = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                loss, after = contract.loss(model, inputs, targets, state)
            torch.autograd.grad(loss, parameters, allow_unused=True)
            state = detach(after, state)
            return time.perf_counter() - begin

        window(False), window(True)
        ratios, end = [], time.perf_counter() + SECONDS
        while not ratios or time.perf_counter() < end:
            ratios.append(window(False) / window(True))
    ratio = statistics.median(ratios)
    name = "bf16-mixed" if ratio >= LEAST_GAIN else "32-true"
    return name, f"bf16-mixed is {ratio:.2f} times as fast as 32-true on this CPU"
