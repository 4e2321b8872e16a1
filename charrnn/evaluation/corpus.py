"""The text that a checkpoint is evaluated on: its own corpus, or another, and the parts of it."""

from torch import Tensor

from charrnn import checkpoint
from charrnn.data.charset import Charset
from charrnn.data.datamodule import CharDataModule
from charrnn.data.split import split_sizes
from charrnn.errors import InputError

MAX_SEARCHED = 50_000
"""Maximum number of held-back characters on which a search tries each setting."""

Part = tuple[Tensor, int, int]
"""Indices (N,) of a text, and the positions where a part of it begins and ends."""


def open_corpus(ours: dict, charset: Charset, data: dict) -> CharDataModule:
    """Open the text of a checkpoint, or another one where ``data`` has a path.

    Args:
        ours: what the checkpoint holds under "charrnn".
        charset: the checkpoint's.
        data: settings of the data module that differ from those in training.

    Raises:
        InputError: the text is unknown, missing, or has changed since the training.
    """
    settings = dict(ours["settings"].get("data") or {})
    if settings.pop("_target_", None) != "charrnn.data.datamodule.CharDataModule":
        settings = {}
    if "path" in data:
        settings |= {"valid_path": None, "test_path": None, "min_count": 1, "charset": charset}
    elif not settings:
        raise InputError("checkpoint: does not say what it was trained on; give data.path=FILE")
    elif settings.get("charset"):
        settings["charset"] = charset
    with checkpoint.report_mismatch():
        module = CharDataModule(**settings | data)
    for key, corpus in module.corpora.items() if "path" not in data else ():
        before = ours["corpus"] if key == "data.path" else ours["corpus"].get(key, {})
        if (before["size"], before["sha256"]) != (len(corpus.tokens), corpus.sha256):
            raise InputError(
                f"{key}: the text has changed since the training; give a copy of that, or another"
                " one, with data.path=FILE"
            )
    return module


def training_split(ours: dict) -> tuple[dict, tuple[int, int, int]]:
    """Return the checksums of a checkpoint's texts, and the sizes of its split.

    Two checkpoints for which this is the same have the same held-back text.

    Raises:
        InputError: the checkpoint does not name its text.
    """
    data, corpus = ours["settings"].get("data"), ours.get("corpus")
    if not (data and corpus):
        raise InputError("checkpoint: does not say what it was trained on; give data.path=FILE")
    sizes = data.get("train_fraction"), data.get("valid_size"), data.get("test_size") or 0
    return corpus, split_sizes(corpus["size"], *sizes)


def is_scorable(part: Part) -> bool:
    """Whether a part has a character that can be scored."""
    return part[2] > max(1, part[1])


def held_back_part(parts: dict[str, Part], scored: str | None) -> Part:
    """Choose a part for a search that does not overlap the scored one.

    It is the validation part, or, where that is scored or empty, the last tenth of the training
    part; ``MAX_SEARCHED`` characters at most.

    Args:
        parts: of the checkpoint's own text, by the name of the split.
        scored: the split that is scored; None where another text is scored.

    Raises:
        InputError: there is no such part.
    """
    tokens, begin, end = parts["valid"]
    if scored == "valid" or (scored != "train" and not is_scorable(parts["valid"])):
        tokens, begin, end = parts["train"]
        begin = end - end // 10
    part = tokens, begin, min(end, begin + MAX_SEARCHED)
    if scored == "all" or not is_scorable(part):
        raise InputError("evaluate.search: nothing of the text is left that is not scored")
    return part
