"""Sessions: the state of a model along a text, which can be continued, forked, saved and loaded."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from charrnn.checkpoint import serialization
from charrnn.checkpoint.serialization import Damaged, checksum
from charrnn.data.charset import Charset
from charrnn.data.files import user_path
from charrnn.errors import InputError, check
from charrnn.generation.context import Context, prefill
from charrnn.generation.decoding import Decoding, is_integer
from charrnn.generation.detokenizer import Detokenizer, encode_prompt
from charrnn.generation.generate import (
    check_length,
    check_seed,
    evaluation_mode,
    in_evaluation_mode,
)
from charrnn.generation.sampler import generate_chunks
from charrnn.models import contract
from charrnn.models.state import from_plain, to_plain

REREAD = 1 << 14
"""Characters of a stream after which they are read, so that a long one takes no more memory."""
FORMAT = 1
"""Version of the dictionary in a session's file."""


class Session:
    """A text under way: what a model has read and generated, held as its state.

    ``LanguageModel.session`` makes one. The random number of a character depends on the seed and on
    the character's position in the text, so that any two sessions with the same seed and the same
    text, in whatever parts it was fed or generated, continue in the same way.

    Args:
        model: as in :mod:`charrnn.models`; it is left in its training or evaluation mode.
        seed: None draws one.
    """

    def __init__(self, model: nn.Module, charset: Charset, seed: int | None = None):
        self.model, self.charset = model, charset
        self.seed = check_seed(seed)
        self.context: Context | None = None
        """None before the first character. It is replaced, never changed: forks share it."""

    def feed(self, text: str, unknown: str = "error") -> "Session":
        """Read a text and return the session.

        Args:
            unknown: as in :func:`charrnn.generation.detokenizer.encode_prompt`; after its
                InputError the session is unchanged.
        """
        indices = encode_prompt(self.charset, text, unknown)
        if len(indices):
            with evaluation_mode(self.model):
                self.context = prefill(self.model, self.charset, indices, self.context)
        return self

    def generate(self, length: int = 500, **settings) -> str:
        """Generate and return the text that follows; the session then continues after it.

        Args:
            length: characters at most (bytes with unit="byte").
            settings: those of :class:`charrnn.generation.decoding.Decoding`.
        """
        return "".join(self.stream(length, **settings))

    def stream(self, length: int = 500, **settings) -> Iterator[str]:
        """Generate the same as :meth:`generate`, as an iterator of characters.

        When the iterator is closed early, the session continues after the characters yielded.
        """
        check_length(length)
        decoding = Decoding(**settings)
        decoding.allowed_mask(self.charset)
        return self._stream(length, decoding)

    def _stream(self, length: int, decoding: Decoding) -> Iterator[str]:
        if not length:
            return
        model, charset = self.model, self.charset
        count, done, detokenizer = 0, [], Detokenizer(charset, decoding.stops)
        with evaluation_mode(model):
            start = self.context or prefill(model, charset, np.zeros(0, np.int64))
        chunks = generate_chunks(model, charset, start, 1, self.seed, decoding, length)

        def read() -> Context:  # again, because chunks run ahead of what was yielded
            with evaluation_mode(model):
                return prefill(model, charset, np.array(done), start)

        try:
            for chunk in in_evaluation_mode(model, chunks):
                for index in chunk.numpy()[:, 0]:
                    count += 1
                    done.append(index)
                    yield from detokenizer(index[None], count == length)
                    if detokenizer.ended:
                        return
                if len(done) >= REREAD:
                    start, done = read(), []
        finally:
            if count:
                self.context = read()

    def fork(self, seed: int | None = None) -> "Session":
        """Return an independent session at the same state, with another seed if one is given."""
        other = Session(self.model, self.charset, self.seed if seed is None else seed)
        other.context = self.context
        return other

    def save(self, path: str | Path) -> None:
        """Write the session, without the model, to a file, atomically."""
        content = {"charrnn_session": FORMAT, "model": self._model_checksum(), "seed": self.seed}
        if self.context is not None:
            content |= self.context._asdict() | {
                "state": to_plain(self.context.state), "recent": torch.tensor(self.context.recent),
            }  # fmt: skip
        serialization.save(content, path)

    def load(self, path: str | Path) -> "Session":
        """Replace this session by one that :meth:`save` wrote, and return it. Runs no code of it.

        Raises:
            InputError: the file is no session, or one of another model.
        """
        path = user_path(path)
        if not path.is_file():
            raise InputError(f"{path}: no session there")
        try:
            content = serialization.load(path)
        except Damaged as error:
            raise InputError(f"{path}: no session, or a damaged one") from error
        if not isinstance(content, dict) or content.get("charrnn_session") != FORMAT:
            raise InputError(f"{path}: no session of this version of charrnn")
        if content.get("model") != self._model_checksum():
            raise InputError(f"{path}: a session of another model; load that one")
        context, like = None, contract.initial_state(self.model, 1)
        try:
            seed = check_seed(content["seed"])
            if "state" in content:
                state = from_plain(content["state"], like)
                logits = content["logits"].to(contract.device_of(self.model))
                context = Context(state, logits, content["recent"].numpy(), content["count"])
                valid = is_integer(context.count, 0) and len(logits) == 1
                check("count", context.count, valid, "that of the state")
        except (LookupError, AttributeError, TypeError, InputError) as error:
            raise InputError(f"{path}: a damaged session") from error
        self.seed, self.context = seed, context
        return self

    def _model_checksum(self) -> str:
        return checksum(self.charset.state_dict(), self.model.state_dict())
