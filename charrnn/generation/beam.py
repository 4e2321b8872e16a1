"""Beam search: the text with the best score that a beam of given width finds.

K width of the beam, V vocabulary size, N characters.
"""

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.data.charset import Charset
from charrnn.generation.context import RECENT, Context
from charrnn.generation.decoding import Decoding
from charrnn.generation.filters import ngram_mask
from charrnn.gru.beam import search
from charrnn.gru.generate import Guard, generator_for, supports_model
from charrnn.models import contract
from charrnn.models.state import repeat_row, select_rows


@torch.inference_mode()
def beam_search(
    model: nn.Module, charset: Charset, context: Context, length: int, decoding: Decoding
) -> Tensor:
    """Return the indices (N,) of the best continuation of a context, N at most ``length``.

    The score is log P(text) / ((5 + N) / 6)^alpha with alpha = ``length_penalty`` (Wu et al. 2016,
    arXiv:1609.08144, equation 14): 0 prefers short texts, 1 is close to the mean per character. P
    is the model's own; ``allow`` and ``no_repeat`` exclude texts without renormalizing. A text
    ends at its first stop string, at the beginning of a document, or at ``length``. At each step
    the K likeliest texts that have not ended are kept. The search is deterministic, and exact where
    K is not below the number of texts.

    Args:
        model: as in :mod:`charrnn.models`, in evaluation mode.
        decoding: with ``beam`` = K.

    Raises:
        FloatingPointError: logits are not finite.
    """
    ends = [charset.encode(s) for s in decoding.stops if not charset.unknown_characters(s)]
    if charset.documents:
        ends.append(np.array([charset.boundary]))
    if supports_model(model) and context.logits.device.type == "cpu":
        return native_search(model, charset, context, length, decoding, ends)
    state, logits, recent, _ = context
    allowed, width, vocab_size = decoding.allowed_mask(charset), decoding.beam, logits.size(1)
    texts, sums = torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.float64)
    best, best_score = texts[0], -np.inf
    for n in range(1, length + 1):
        scores = sums + logits.cpu().double().log_softmax(-1)
        if not scores.isfinite().all():
            raise FloatingPointError("logits are not finite")
        if decoding.no_repeat:
            last = np.concatenate([np.tile(recent, (len(texts), 1)), texts.numpy()], 1)
            mask = ngram_mask(allowed, last[:, -RECENT:], decoding.no_repeat, vocab_size)
            scores = scores.masked_fill(~mask, -torch.inf)
        elif allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        penalty = ((5 + n) / 6) ** decoding.length_penalty
        kept = []
        # Enough candidates that K of those that have not ended are among them.
        for position in top_positions(scores.flatten().numpy(), width * (1 + len(ends))):
            row, index = divmod(position, vocab_size)
            text = torch.cat([texts[row], torch.tensor([index])])
            if n == length or any(ends_with(text.numpy(), end) for end in ends):
                if (score := scores[row, index].item() / penalty) > best_score:
                    best, best_score = text, score
            elif len(kept) < width:
                kept.append((row, index, text))
        if not kept:
            break
        rows, chosen = (torch.tensor(x) for x in list(zip(*kept))[:2])
        sums, texts = scores[rows, chosen][:, None], torch.stack([text for _, _, text in kept])
        # A continuation is no likelier than its beginning, and the longest has the mildest penalty.
        if best_score >= sums.max().item() / ((5 + length) / 6) ** decoding.length_penalty:
            break
        state = select_rows(state, rows, contract.batch_dim(model))
        logits, state = contract.run(model, chosen[None].to(logits.device), state)
        logits = logits[0]
    return best


def native_search(
    model: nn.Module,
    charset: Charset,
    context: Context,
    length: int,
    decoding: Decoding,
    ends: list[np.ndarray],
) -> Tensor:
    """What :func:`beam_search` returns, by the kernels."""
    vocab_size = context.logits.size(1)
    # No more rows than there are texts.
    width = min(decoding.beam, vocab_size ** min(length, 64))
    logits = context.logits.repeat(width, 1)
    state = repeat_row(context.state, width, contract.batch_dim(model))
    recent = torch.from_numpy(context.recent.astype(np.int64))[None]
    return search(
        generator_for(model, logits, state),
        length,
        decoding.length_penalty,
        [torch.from_numpy(end.astype(np.int64)) for end in ends],
        decoding.allowed_mask(charset),
        Guard(decoding.no_repeat, RECENT, recent) if decoding.no_repeat else None,
    )


def top_positions(scores: np.ndarray, count: int) -> list[int]:
    """Return the positions of the ``count`` highest finite scores (N,), in descending order.

    Of equal scores the first comes first; ties with the last one are all included.
    """
    positions = np.arange(len(scores))
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        positions = np.flatnonzero(scores >= least)
    positions = positions[scores[positions] > -np.inf]
    return positions[np.argsort(-scores[positions], kind="stable")].tolist()


def ends_with(text: np.ndarray, end: np.ndarray) -> bool:
    """Whether the last indices of a text (N,) equal those of an end."""
    return len(end) <= len(text) and (text[len(text) - len(end) :] == end).all()
