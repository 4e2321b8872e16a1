"""A trained model as a person uses it: text in, text and numbers out.

L layers, T characters, H hidden size.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from charrnn import evaluation, sampler
from charrnn.charset import Charset
from charrnn.ensemble import Ensemble
from charrnn.errors import InputError
from charrnn.session import Session


class LanguageModel:
    """A model and its charset: text in, text and numbers out."""

    def __init__(self, model: nn.Module, charset: Charset):
        self.model, self.charset = model, charset

    def generate(self, prompt: str = "", length: int = 500, **settings) -> str:
        """The prompt and ``length`` characters after it.

        Settings are those of ``sampler.texts`` and :class:`charrnn.decoding.Decoding`.
        """
        return "".join(self.stream(prompt, length, **settings))

    def stream(self, prompt: str = "", length: int = 500, **settings) -> Iterator[str]:
        """The characters of :meth:`generate` one at a time, as they come."""
        steps = sampler.texts(self.model, self.charset, prompt, length, **settings)
        return (character for (added,) in steps for character in added)

    def generate_many(self, num_samples: int, prompt: str = "", length: int = 500, **settings):
        """Several texts at once, a list; the first is that of :meth:`generate`."""
        steps = sampler.texts(self.model, self.charset, prompt, length, num_samples, **settings)
        return ["".join(parts) for parts in zip(*steps)]

    def session(self, path: str | Path | None = None, seed: int | None = None) -> Session:
        """A session that has read nothing, or the one that ``Session.save`` wrote into a file.

        Args:
            seed: None draws one, or takes that of the file.
        """
        session = Session(self.model, self.charset, seed)
        return session if path is None else session.load(path).fork(seed)

    def score(self, text: str) -> np.ndarray:
        """Nats of each character after the first, (T - 1,) float64, read from a zero state.

        Characters outside the alphabet count as U+FFFD. With unit="byte", nats of each byte.
        """
        return evaluation.score(self.model, self._indices(text))

    def score_many(self, texts: list[str]) -> list[np.ndarray]:
        """What :meth:`score` returns for each of several texts, read beside each other."""
        return evaluation.score_many(self.model, [self._indices(text) for text in texts])

    def activations(self, text: str) -> np.ndarray:
        """Every unit after every character, (L, H, T), between -1 and 1, read from a zero state."""
        return self._inside(text, gates=False)[0]

    def gates(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The reset and the update gate of every unit at every character, each (L, H, T)."""
        return self._inside(text, gates=True)

    @torch.inference_mode()
    def _inside(self, text: str, gates: bool) -> tuple[np.ndarray, ...]:
        if isinstance(self.model, Ensemble):
            raise InputError("several models have no units in common; load one of them")
        inputs, state = self._indices(text)[:, None], self.model.initial_state(1)
        if not len(inputs):
            nothing = np.zeros((state.size(0), state.size(2), 0), np.float32)
            return nothing, nothing
        found = self.model.activations(inputs, state)
        parts = self.model.gates(inputs, state, found) if gates else (found,)
        return tuple(part[:, :, 0].mT.cpu().numpy() for part in parts)

    def _indices(self, text: str) -> Tensor:
        indices = torch.from_numpy(self.charset.encode(text).astype(np.int64))
        return indices.to(self.model.decoder.weight.device)
