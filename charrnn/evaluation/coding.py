"""The models of a compression: static, or adapting to the text, with the characters coded.

T time steps in a segment, B streams, N characters, V vocabulary size.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from charrnn.data.windows import PADDING
from charrnn.evaluation import symbols
from charrnn.evaluation.archive import SEQ_LEN
from charrnn.evaluation.dynamic import Adaptation
from charrnn.evaluation.static import MAX_LOGITS
from charrnn.evaluation.totals import Totals
from charrnn.gru import coder
from charrnn.gru.generate import generator_for, supports_model
from charrnn.models import contract

SCORED = 100
"""Steps of the model in one call of an evaluation."""
OPERATIONS = 10**10
"""Products of weights in one call of the kernels, so that Ctrl-C is heard between them."""


class StaticCoding:
    """Codes characters with fixed parameters.

    Args:
        model: as in :mod:`charrnn.models`, on the CPU and in evaluation mode.
        first: index of the character before the first of each stream.
        rows: B.
        in_bytes: whether the model's characters are bytes.
    """

    def __init__(self, model: nn.Module, first: int, rows: int, in_bytes: bool):
        self.native = supports_model(model)
        self.streams = (coder if self.native else symbols).Streams(rows, in_bytes)
        parameters = sum(p.numel() for p in model.parameters())
        self.steps = max(1, OPERATIONS // (rows * parameters))
        self.stepper = self.step_from(
            model, np.full(rows, first), contract.initial_state(model, rows)
        )

    @torch.inference_mode()
    def step_from(self, model: nn.Module, last: np.ndarray, state):
        """Return the model after one more character of each stream, ready for ``run``."""
        logits, state = contract.run(model, torch.from_numpy(last[None]), state)
        if self.native:
            return generator_for(model, logits[0], state)
        return symbols.Stepper(model, logits[0], state)

    def code(
        self, indices: np.ndarray, points: np.ndarray, counts: np.ndarray, decode: bool,
        update: Callable[[int], None] = lambda characters: None,
    ) -> None:  # fmt: skip
        """Code the next characters of a block; arguments as in :func:`charrnn.gru.coder.run`.

        Args:
            update: called after each part of them with its characters.
        """
        with torch.inference_mode():
            for start in range(0, len(indices), self.steps):
                part, left = slice(start, start + self.steps), (counts - start).clip(0)
                self.run(self.stepper, indices[part], points[part], left, decode)
                update(int(left.clip(max=self.steps).sum()))

    def run(self, stepper, *arguments) -> None:
        """Code with the kernels, or with any model's own ``forward``."""
        (coder if self.native else symbols).run(stepper, self.streams, *arguments)


class DynamicCoding(StaticCoding):
    """Codes segments of characters, each with parameters that the ones before it have changed.

    This is :func:`charrnn.evaluation.dynamic.evaluate_dynamic`, form sgd: a decoder has the text of
    a segment when the update needs it.

    Args:
        lr, decay: eta and lambda.

    Attributes:
        totals: those of the dynamic evaluation.
    """

    def __init__(
        self, model: nn.Module, first: int, rows: int, in_bytes: bool, lr: float, decay: float
    ):
        self.totals, self.adaptation = Totals(), Adaptation(model, lr, decay)
        self.last, self.state = np.full(rows, first), contract.initial_state(model, rows)
        super().__init__(model, first, rows, in_bytes)

    def code(
        self, indices: np.ndarray, points: np.ndarray, counts: np.ndarray, decode: bool,
        update: Callable[[int], None] = lambda characters: None,
    ) -> None:  # fmt: skip
        """Code the next characters, as many as there are or a multiple of ``SEQ_LEN``."""
        model = self.adaptation.model
        for start in range(0, len(indices), SEQ_LEN):
            part, left = slice(start, start + SEQ_LEN), (counts - start).clip(0)
            with torch.inference_mode():
                stepper = self.step_from(model, self.last, self.state)
                self.run(stepper, indices[part], points[part], left, decode)
            inputs, targets = shifted(self.last, indices[part], left)
            self.state = self.adaptation.step(self.totals, inputs, targets, self.state)
            self.last = indices[part][-1].copy()
            if not math.isfinite(self.totals.total):
                raise FloatingPointError("the parameters are not finite")
            update(int(left.clip(max=SEQ_LEN).sum()))


class Judge:
    """What evaluation says of the characters that a :class:`StaticCoding` codes.

    Args:
        model, first, rows: as there.

    Attributes:
        nats: of all characters so far.
    """

    def __init__(self, model: nn.Module, first: int, rows: int):
        self.model, self.nats = model, 0.0
        self.last, self.state = np.full(rows, first), contract.initial_state(model, rows)
        logits, _ = contract.run(model, torch.from_numpy(self.last[None]), self.state)
        self.steps = max(1, min(SCORED, MAX_LOGITS // logits.numel()))

    @torch.inference_mode()
    def add(
        self, indices: np.ndarray, counts: np.ndarray,
        update: Callable[[int], None] = lambda characters: None,
    ) -> None:  # fmt: skip
        """Add the characters of a block, indices (N, B), ``counts`` of each stream.

        Args:
            update: as of :meth:`StaticCoding.code`.
        """
        for start in range(0, len(indices), self.steps):
            part = indices[start : start + self.steps]
            inputs, targets = shifted(self.last, part, counts - start)
            mean, self.state = contract.loss(self.model, inputs, targets, self.state)
            self.nats += mean.item() * int((targets != PADDING).sum())
            self.last = part[-1].copy()
            update(int((counts - start).clip(0, self.steps).sum()))


def shifted(last: np.ndarray, indices: np.ndarray, counts: np.ndarray):
    """Return the inputs and targets (T, B) of characters after the last ones (B,).

    Those beyond ``counts`` (B,) are padding.
    """
    targets = np.where(np.arange(len(indices))[:, None] < counts, indices, PADDING)
    inputs = np.concatenate([last[None], indices[:-1]])
    return torch.from_numpy(inputs), torch.from_numpy(targets)
