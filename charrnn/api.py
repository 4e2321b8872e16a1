"""The Python interface to trained models: ``load`` and ``LanguageModel``.

L layers, T characters, H hidden size.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from charrnn import checkpoint
from charrnn.analysis import activations
from charrnn.data.charset import Charset
from charrnn.evaluation import static as evaluation
from charrnn.generation import sampler
from charrnn.generation.session import Session
from charrnn.runs import find_checkpoints


class LanguageModel:
    """A model and its charset: text in, text and numbers out."""

    def __init__(self, model: nn.Module, charset: Charset):
        self.model, self.charset = model, charset

    def generate(self, prompt: str = "", length: int = 500, **settings) -> str:
        """The prompt and ``length`` characters after it.

        Settings are those of ``sampler.texts`` and :class:`charrnn.generation.decoding.Decoding`.
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
        """What :meth:`score` returns for each of several texts, evaluated in batches."""
        return evaluation.score_many(self.model, [self._indices(text) for text in texts])

    def activations(self, text: str) -> np.ndarray:
        """Every unit after every character, (L, H, T), between -1 and 1, read from a zero state."""
        return activations.activations(self.model, self.charset, text)

    def gates(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The reset and the update gate of every unit at every character, each (L, H, T)."""
        return activations.gates(self.model, self.charset, text)

    def _indices(self, text: str) -> Tensor:
        indices = torch.from_numpy(self.charset.encode(text).astype(np.int64))
        return indices.to(self.model.decoder.weight.device)


def load(path: str | Path | Iterable[str | Path]) -> LanguageModel:
    """A trained model from a checkpoint, or from a run's folder (its last checkpoint).

    Several of them, or the folder of a sweep, give the models together, as one that predicts the
    mean of their probabilities (see :class:`charrnn.models.ensemble.Ensemble`).

    Nothing but the files is needed. Raises InputError as :func:`charrnn.checkpoint.read` does.
    """
    files = find_checkpoints(path)
    return LanguageModel(*checkpoint.build_models(files, [checkpoint.read(file) for file in files]))
