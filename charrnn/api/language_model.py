"""Trained models in Python: ``load`` and ``LanguageModel``.

L layers, T characters of a text, H hidden size.
"""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from charrnn import checkpoint, evaluation
from charrnn.analysis import compute_activations, compute_gates
from charrnn.data.charset import Charset
from charrnn.data.files import user_path
from charrnn.errors import InputError, check
from charrnn.generation import Session, generate_texts
from charrnn.models.contract import device_of
from charrnn.runs import find_checkpoints


def suggest_keywords(function: Callable) -> Callable:
    """Raise InputError with the nearest name where a keyword is misspelt."""
    known = list(inspect.signature(function).parameters)[1:]

    @functools.wraps(function)
    def wrapper(self, *args, **settings):
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"they are {', '.join(known)}"
                raise InputError(f"{name}: no such argument of {function.__name__}; {hint}")
        return function(self, *args, **settings)

    return wrapper


class LanguageModel:
    """A trained model and its charset: text in, text and numbers out.

    Args:
        model: a model of :mod:`charrnn.models`, in evaluation mode.
        charset: the alphabet of its training text.
        saved: the checkpoint that it is from, for :meth:`save`; its "charrnn" has the settings,
            windows and validations.
    """

    def __init__(self, model: nn.Module, charset: Charset, saved: dict | None = None):
        self.model, self.charset = model, charset
        self.saved = (saved or {}).get("charrnn", {})

    def __repr__(self) -> str:
        sizes = self.saved.get("settings", {}).get("model", {})
        sizes = {k: v for k, v in sizes.items() if type(v) is int and k != "parameters"}
        parameters = sum(p.numel() for p in self.model.parameters())
        parts = [type(self.model).__name__, *(f"{k}={v}" for k, v in sizes.items())]
        parts += [f"{parameters:,} parameters", f"{len(self.charset)} characters"]
        if "windows" in self.saved:
            parts.append(f"window {self.saved['windows']}")
        first = self.saved.get("validation_text", {}).get("first", 0)  # of those that compare
        validations = self.saved.get("validations", ())[first:]
        if losses := [loss for windows, loss in validations if windows]:
            parts.append(f"best validation {min(losses) / math.log(2):.4f} bpc")
        return f"LanguageModel({', '.join(parts)})"

    def save(self, path: str | Path) -> None:
        """Write the model to a file of which :func:`load` and ``init_from=`` make it again.

        The file has the weights, settings, charset and validations, not what a run resumes from.

        Raises:
            InputError: this is an ensemble, or a model that was not loaded from a checkpoint.
        """
        if "settings" not in self.saved:
            raise InputError(f"{path}: only a model of a checkpoint can be saved; no ensemble")
        kept = ("format", "version", "settings", "charset", "windows", "validations",
                "validation_text")  # fmt: skip
        state = {checkpoint.PREFIX + k: v.cpu() for k, v in self.model.state_dict().items()}
        ours = {key: self.saved[key] for key in kept if key in self.saved}
        checkpoint.save({"charrnn": ours, "state_dict": state}, user_path(path))

    @suggest_keywords
    def generate(
        self,
        prompt: str | Sequence[str] = "",
        length: int = 500,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        allow: str | None = None,
        no_repeat: int | None = None,
        beam: int | None = None,
        length_penalty: float = 0.6,
        precision: int = 32,
        unknown: str = "error",
    ) -> str | list[str]:
        """Return the prompt and the ``length`` characters that the model writes after it.

        Args:
            prompt: text that the model reads first; of a list of prompts, one text is returned for
                each, that of a call with this prompt and seed. They are generated in one batch,
                unless ``beam`` or ``no_repeat`` is given.
            length: characters to write (bytes with ``unit="byte"``).
            seed: None draws one, for each prompt another.
            unknown: what becomes of unknown characters of the prompt, as in
                :func:`charrnn.generation.generate_texts`.
            temperature, top_k, top_p, min_p, stop, allow, no_repeat, beam, length_penalty,
            precision: as in :class:`charrnn.generation.Decoding`.

        Raises:
            InputError: a setting is out of range, or the prompt has an unknown character.
        """
        settings = {k: v for k, v in locals().items() if k not in ("self", "prompt", "length")}
        texts = self._generate(1, prompt, length, settings)
        return texts[0] if isinstance(prompt, str) else [text for (text,) in texts]

    @suggest_keywords
    def stream(
        self,
        prompt: str = "",
        length: int = 500,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        allow: str | None = None,
        no_repeat: int | None = None,
        beam: int | None = None,
        length_penalty: float = 0.6,
        precision: int = 32,
        unknown: str = "error",
    ) -> Iterator[str]:
        """Iterate over the characters of :meth:`generate`, of one prompt, as they are written."""
        settings = {k: v for k, v in locals().items() if k not in ("self", "prompt", "length")}
        check("prompt", prompt, isinstance(prompt, str), "one text; generate takes several")
        steps = generate_texts(self.model, self.charset, prompt, length, **settings)
        return (character for (added,) in steps for character in added)

    @suggest_keywords
    def generate_many(
        self,
        num_samples: int,
        prompt: str | Sequence[str] = "",
        length: int = 500,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        allow: str | None = None,
        no_repeat: int | None = None,
        beam: int | None = None,
        length_penalty: float = 0.6,
        precision: int = 32,
        unknown: str = "error",
    ) -> list[str] | list[list[str]]:
        """Return several texts, generated in one batch; the first is that of :meth:`generate`.

        Of a list of prompts, several texts are returned for each.
        """
        settings = dict(locals())
        for name in ("self", "num_samples", "prompt", "length"):
            del settings[name]
        return self._generate(num_samples, prompt, length, settings)

    def _generate(self, num_samples: int, prompt, length: int, settings: dict) -> list:
        """Return the texts of a prompt, or the list of these of several."""
        is_one = isinstance(prompt, str) or not isinstance(prompt, Iterable)
        if not is_one:
            prompt = list(prompt)
            if settings["beam"] or settings["no_repeat"]:
                return [self._generate(num_samples, each, length, settings) for each in prompt]
        steps = generate_texts(self.model, self.charset, prompt, length, num_samples, **settings)
        texts = ["".join(parts) for parts in zip(*steps)]
        if is_one:
            return texts
        return [texts[i : i + num_samples] for i in range(0, len(texts), num_samples)]

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
    path: str | Path | Iterable[str | Path], allow_targets: str | Sequence[str] = ()
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
    if isinstance(allow_targets, str):
        allow_targets = [allow_targets]
    files = find_checkpoints(path)
    found = [checkpoint.read(file) for file in files]
    saved = found[0] if len(found) == 1 else None
    return LanguageModel(*checkpoint.build_models(files, found, allow_targets), saved)
