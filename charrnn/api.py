"""The Python interface to trained models: ``load`` and ``LanguageModel``.

L layers, T characters of a text, H hidden size.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from charrnn import checkpoint, evaluation
from charrnn.analysis import compute_activations, compute_gates
from charrnn.data.charset import Charset
from charrnn.generation import Session, generate_texts
from charrnn.models.contract import device_of
from charrnn.runs import find_checkpoints


class LanguageModel:
    """A trained model and its charset: text in, text and numbers out.

    Args:
        model: a model of :mod:`charrnn.models`, in evaluation mode.
        charset: the alphabet of its training text.
    """

    def __init__(self, model: nn.Module, charset: Charset):
        self.model, self.charset = model, charset

    def generate(self, prompt: str = "", length: int = 500, **settings) -> str:
        """Return the prompt and the ``length`` characters that the model writes after it.

        Args:
            prompt: text that the model reads first.
            length: characters to write (bytes with ``unit="byte"``).
            settings: ``seed`` and ``unknown`` as in :func:`charrnn.generation.generate_texts`, and
                the attributes of :class:`charrnn.generation.Decoding`: ``temperature``, ``top_k``,
                ``top_p``, ``min_p``, ``stop`` and so on.

        Raises:
            InputError: a setting is out of range, or the prompt has an unknown character.
        """
        return "".join(self.stream(prompt, length, **settings))

    def stream(self, prompt: str = "", length: int = 500, **settings) -> Iterator[str]:
        """Iterate over the characters of :meth:`generate` as they are written."""
        steps = generate_texts(self.model, self.charset, prompt, length, **settings)
        return (character for (added,) in steps for character in added)

    def generate_many(
        self, num_samples: int, prompt: str = "", length: int = 500, **settings
    ) -> list[str]:
        """Return several texts, generated in one batch; the first is that of :meth:`generate`."""
        steps = generate_texts(self.model, self.charset, prompt, length, num_samples, **settings)
        return ["".join(parts) for parts in zip(*steps)]

    def session(self, path: str | Path | None = None, seed: int | None = None) -> Session:
        """Return a session that has read nothing, or the one in a file of ``Session.save``.

        Args:
            path: the file; None starts an empty session.
            seed: of the text to come; None draws one, or takes that of the file.
        """
        session = Session(self.model, self.charset, seed)
        return session if path is None else session.load(path).fork(seed)

    def score(self, text: str) -> np.ndarray:
        """Return the nats of each character after the first, (T - 1,) float64.

        The text is read from a zero state. Characters outside the alphabet count as U+FFFD. With
        ``unit="byte"`` the result has an entry for each byte after the first.
        """
        return evaluation.score(self.model, self._indices(text))

    def score_many(self, texts: list[str]) -> list[np.ndarray]:
        """Return what :meth:`score` returns for each of several texts, evaluated in batches."""
        return evaluation.score_many(self.model, [self._indices(text) for text in texts])

    def activations(self, text: str) -> np.ndarray:
        """Return the output of every unit after every character, (L, H, T), between -1 and 1.

        The text is read from the initial state. Units of models other than GRUs and LSTMs may leave
        that range. Raises InputError for an ensemble, and a model without ``activations``.
        """
        return compute_activations(self.model, self.charset, text)

    def gates(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the reset and update gates of every unit, each (L, H, T), between 0 and 1.

        The text is read from the initial state. Raises InputError for an ensemble, and a model
        without ``gates``.
        """
        return compute_gates(self.model, self.charset, text)

    def _indices(self, text: str) -> Tensor:
        indices = torch.from_numpy(self.charset.encode(text).astype(np.int64))
        return indices.to(device_of(self.model))


def load(
    path: str | Path | Iterable[str | Path], allow_targets: Sequence[str] = ()
) -> LanguageModel:
    """Load a trained model from a checkpoint, or from a run's folder (its last checkpoint).

    Several paths, or the folder of a sweep, give an ensemble, which predicts the mean of its
    members' probabilities (:class:`charrnn.models.Ensemble`). Only the files are needed, neither
    the training text nor Lightning nor Hydra.

    Args:
        path: checkpoints, run folders or sweep folders.
        allow_targets: packages, besides charrnn, whose models may be imported, such as
            ``["mypackage"]``. Loading runs no other code that a file names.

    Raises:
        InputError: a file is missing, damaged, or no checkpoint of this version of charrnn; or its
            model is of a package that is not allowed.
    """
    files = find_checkpoints(path)
    saved = [checkpoint.read(file) for file in files]
    return LanguageModel(*checkpoint.build_models(files, saved, allow_targets))
