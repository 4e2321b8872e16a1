"""Beam search: the text with the best score, as far as a beam of given width finds it.

K width of the beam, V vocabulary size, H hidden size, L layers, N characters.
"""

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.data.charset import Charset
from charrnn.generation.decoding import RECENT, Decoding, without_repeats


@torch.inference_mode()
def search(
    model: nn.Module,
    charset: Charset,
    state: Tensor,
    logits: Tensor,
    recent: np.ndarray,
    length: int,
    decoding: Decoding,
) -> Tensor:
    """The indices (N,) of the best text that goes on from a state, N at most ``length``.

    The score is log P(text) / ((5 + N) / 6)^alpha, alpha being ``length_penalty`` (Wu et al. 2016,
    arXiv:1609.08144, equation 14): 0 prefers short texts, 1 almost the mean. P is the model's, whom
    ``allow`` and ``no_repeat`` keep from some texts, but do not make surer of others. A text has
    ended at its first stop string, at the beginning of a document, or at ``length``. Each time, the
    K likeliest of those that have not are kept; the same comes out each time. Exact where K is no
    less than the number of texts.

    Args:
        state: (L, 1, H) after the prompt.
        logits: (1, V) of the first character.
        recent: (N,) indices of the prompt's end, for ``no_repeat``.

    Raises FloatingPointError where logits are not finite.
    """
    allowed, width, vocab_size = decoding.allowed(charset), decoding.beam, logits.size(1)
    ends = [charset.encode(s) for s in decoding.stops if not charset.unknown_characters(s)]
    if charset.documents:
        ends.append(np.array([charset.boundary]))
    texts, sums = torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.float64)
    best, best_score = texts[0], -np.inf
    for n in range(1, length + 1):
        scores = sums + logits.cpu().double().log_softmax(-1)
        if not scores.isfinite().all():
            raise FloatingPointError("logits are not finite")
        if decoding.no_repeat:
            whole = np.concatenate([np.tile(recent, (len(texts), 1)), texts.numpy()], 1)[
                :, -RECENT:
            ]
            mask = without_repeats(allowed, whole, decoding.no_repeat, vocab_size)
            scores = scores.masked_fill(~mask, -torch.inf)
        elif allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        penalty = ((5 + n) / 6) ** decoding.length_penalty
        kept = []
        # So many that K are left of them which have not ended.
        for place in likeliest(scores.flatten().numpy(), width * (1 + len(ends))):
            row, index = divmod(place, vocab_size)
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
        # No text gets likelier by what follows, and none is judged more mildly than the longest.
        if best_score >= sums.max().item() / ((5 + length) / 6) ** decoding.length_penalty:
            break
        state = state.expand(-1, len(rows), -1) if n == 1 else state[:, rows.to(state.device)]
        logits, state = model(chosen[None].to(state.device), state.contiguous())
        logits = logits[0]
    return best


def likeliest(scores: np.ndarray, count: int) -> list[int]:
    """The places of so many highest scores (N,), from the highest on; of equals the first."""
    places = np.arange(len(scores))
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        places = np.flatnonzero(scores >= least)
    places = places[scores[places] > -np.inf]
    return places[np.argsort(-scores[places], kind="stable")].tolist()


def ends_with(text: np.ndarray, end: np.ndarray) -> bool:
    """Whether a text's last indices are those of an end."""
    return len(end) <= len(text) and (text[len(text) - len(end) :] == end).all()
