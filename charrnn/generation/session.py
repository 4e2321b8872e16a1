"""A session: a model that has read a text, and goes on from there."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from charrnn.checkpoint import serialization
from charrnn.checkpoint.serialization import Damaged, checksum
from charrnn.data.charset import Charset
from charrnn.errors import InputError, check
from charrnn.generation import sampler
from charrnn.generation.decoding import Decoding, is_whole
from charrnn.generation.detokenizer import Writer, encode_prompt
from charrnn.generation.sampler import Context, evaluating, pieces

FORMAT = 1  # of the dictionary in a file


class Session:
    """What a model has read and written so far, as its state; made by ``LanguageModel.session``.

    The number that draws a character depends on the seed and the character's place in the text, so
    that a session goes on as any other of this seed that has read the same, in whatever parts.

    Args:
        model: as in :mod:`charrnn.models`; left in the mode that it was in.
        seed: None draws one.
    """

    def __init__(self, model: nn.Module, charset: Charset, seed: int | None = None):
        self.model, self.charset = model, charset
        self.seed = sampler.check_seed(seed)
        self.context: Context | None = None
        """None before the first character. Never written into, so that forks may share it."""

    def feed(self, text: str, unknown: str = "error") -> "Session":
        """Read a text.

        Args:
            unknown: as in ``text.encode_prompt``, whose InputError leaves the session as it was.
        """
        self._read(encode_prompt(self.charset, text, unknown))
        return self

    def generate(self, length: int = 500, **settings) -> str:
        """The text that comes next, which the session has read then.

        Args:
            length: of characters at most (bytes with unit="byte").
            settings: those of :class:`charrnn.generation.decoding.Decoding`.
        """
        return "".join(self.stream(length, **settings))

    def stream(self, length: int = 500, **settings) -> Iterator[str]:
        """The characters of :meth:`generate` one at a time, as they come.

        Where a stream is left before its end, the session has read what was given.
        """
        sampler.check_length(length)
        decoding = Decoding(**settings)
        decoding.allowed(self.charset)
        return self._stream(length, decoding)

    def _stream(self, length: int, decoding: Decoding) -> Iterator[str]:
        if not length:
            return
        drawn, write = [], Writer(self.charset, decoding.stops)
        with evaluating(self.model):
            begun = self.context or sampler.read(self.model, self.charset, np.zeros(0, np.int64))
            try:
                for piece in pieces(
                    self.model, self.charset, begun, 1, self.seed, decoding, length
                ):
                    for index in piece.numpy()[:, 0]:
                        drawn.append(index)
                        yield from write(index[None], len(drawn) == length)
                        if write.ended:
                            return
            finally:
                if drawn:  # read anew, since pieces run ahead of what was given
                    self.context = sampler.read(self.model, self.charset, np.array(drawn), begun)

    def _read(self, indices: np.ndarray) -> None:
        if len(indices):
            with evaluating(self.model):
                self.context = sampler.read(self.model, self.charset, indices, self.context)

    def fork(self, seed: int | None = None) -> "Session":
        """An independent session that has read the same; of another seed, where one is given."""
        other = Session(self.model, self.charset, self.seed if seed is None else seed)
        other.context = self.context
        return other

    def save(self, path: str | Path) -> None:
        """Write the session, less the model, into a file, whole or not at all."""
        kept = {"charrnn_session": FORMAT, "model": self._model_checksum(), "seed": self.seed}
        if self.context is not None:
            kept |= self.context._asdict() | {"recent": torch.tensor(self.context.recent)}
        serialization.save(kept, path)

    def load(self, path: str | Path) -> "Session":
        """Take up what :meth:`save` wrote, in place of what was read. Loading runs no code.

        Raises InputError for what is no session, or one of another model.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise InputError(f"{path}: no session there")
        try:
            kept = serialization.load(path)
        except Damaged as error:
            raise InputError(f"{path}: no session, or a damaged one") from error
        if not isinstance(kept, dict) or kept.get("charrnn_session") != FORMAT:
            raise InputError(f"{path}: no session of this version of charrnn")
        if kept.get("model") != self._model_checksum():
            raise InputError(f"{path}: a session of another model; load that one")
        context, like = None, self.model.initial_state(1)
        try:
            seed = sampler.check_seed(kept["seed"])
            if "state" in kept:
                state, logits = (kept[name].to(like) for name in ("state", "logits"))
                context = Context(state, logits, kept["recent"].numpy(), kept["count"])
                whole = is_whole(context.count, 0) and state.shape == like.shape
                check("count", context.count, whole and len(logits) == 1, "that of the state")
        except (LookupError, AttributeError, TypeError, InputError) as error:
            raise InputError(f"{path}: a damaged session") from error
        self.seed, self.context = seed, context
        return self

    def _model_checksum(self) -> str:
        return checksum(self.charset.state_dict(), self.model.state_dict())
