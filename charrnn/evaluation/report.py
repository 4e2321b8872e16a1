"""What mode=evaluate reports: the figures of a checkpoint on a text, cold, warm and dynamic."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from charrnn import checkpoint
from charrnn.checkpoint.files import atomic_write
from charrnn.data.charset import Charset
from charrnn.data.datamodule import CharDataModule
from charrnn.data.split import split_sizes
from charrnn.data.windows import BURN_IN, EvaluationWindows
from charrnn.errors import InputError, check, escape_control
from charrnn.evaluation import dynamic
from charrnn.evaluation import static as evaluation
from charrnn.evaluation.static import Figures

SEARCHED = 50_000
"""Characters of held-back text on which a search tries each setting, at most."""
SEQ_LEN = 100  # of the static figures, which do not depend on it
DEFAULT_LR = {"sgd": 1e-2, "rms": 2e-5}
"""On 50,000 characters of tiny Shakespeare (H 128, L 2) the best of sgd was 2e-2, of rms 2e-5."""

Part = tuple[Tensor, int, int]
"""Indices of a text, and where in it a part begins and ends."""


def report(
    files: list[Path],
    data: dict,
    split: str | None = None,
    rows: int | None = None,
    burn_in: int = BURN_IN,
    dynamic: str | None = None,
    lr: float | None = None,
    decay: float | None = None,
    seq_len: int = 20,
    dynamic_rows: int = 1,
    search: bool = False,
) -> dict:
    """The figures of a checkpoint, in plain containers.

    Args:
        files: checkpoints; several predict together.
        data: settings of :class:`charrnn.data.datamodule.CharDataModule` that are other than in
            training. Of another ``path`` all is scored, unless ``split`` is given.
        split: train, valid, test or all; None is test where the text has that part, else valid.
        rows: rows of the static figures; None as in :class:`charrnn.evaluation.static.EvaluationWindows`.
        burn_in: characters that a row of the warm and dynamic figures is read in over.
        dynamic: the form of dynamic evaluation, sgd or rms; None leaves it out.
        lr, decay, seq_len, dynamic_rows: settings of dynamic evaluation.
        search: whether those of lr and decay that are None are searched for, on text that is not
            scored: the valid part of the model's corpus, or where that is what is scored, the last
            tenth of its training part.

    Raises InputError for a text that is missing or has changed, and for settings out of range.
    """
    form, splits = dynamic, (None, "train", "valid", "test", "all")
    check("evaluate.dynamic", form, form in (None, "sgd", "rms"), "sgd, rms or null")
    check("evaluate.split", split, split in splits, "train, valid, test, all or null")
    for name, value in (("rows", rows), ("seq_len", seq_len), ("dynamic_rows", dynamic_rows)):
        ok = value is None or value >= 1
        check(f"evaluate.{name}", value, ok, "a whole number, at least 1")
    check("evaluate.burn_in", burn_in, burn_in >= 0, "a whole number, at least 0")
    check("evaluate.lr", lr, lr is None or 0 <= lr < 1e38, "at least 0, or null")
    check("evaluate.decay", decay, decay is None or 0 <= decay <= 1, "from 0 to 1, or null")
    ok = form is not None or not search
    check("evaluate.search", search, ok, "false without evaluate.dynamic=sgd or rms")

    every = [checkpoint.read(file) for file in files]
    model, charset = checkpoint.build_models(files, every)
    saved, other = every[0], "path" in data
    whole = other and split in (None, "all") and not search
    for file, one in zip(files, every) if not whole and len(files) > 1 else ():
        if trained_on(one["charrnn"]) != trained_on(saved["charrnn"]):
            raise InputError(
                f"{file}: trained on another text or another part of it than {files[0]}; together"
                " they are judged by the whole of one more, data.path=FILE"
            )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if other and split is None:
        split, data = "all", data | {"train_fraction": 1.0, "valid_size": None, "test_size": 0}
    text = open_text(saved["charrnn"], charset, data)
    if split is None:
        split = "test" if has(text.parts["test"]) else "valid"
    part = text.parts[split]
    if not has(part):
        raise InputError(f"evaluate.split={split}: the text has no such part; name another one")
    tokens, begin, end = part
    warm = EvaluationWindows(tokens, SEQ_LEN, begin, end, rows, burn_in)
    cold = EvaluationWindows(tokens, SEQ_LEN, begin, end, warm.rows, 0)
    found = {"cold": evaluation.evaluate(model, cold), "warm": evaluation.evaluate(model, warm)}
    result = {
        "checkpoint": one_or_all([str(file) for file in files]),
        "windows": one_or_all([one["charrnn"].get("windows") for one in every]),
        "sha256": text.corpora.get(f"data.{split}_path", text.corpus).sha256,
        "split": split,
        "characters": found["warm"].characters,
        "cold": found["cold"].report() | {"rows": cold.rows},
        "warm": found["warm"].report() | {"rows": warm.rows, "burn_in": burn_in},
    }
    if form:
        home = text
        if other and (search or form == "rms"):
            kept = {key: value for key, value in data.items() if key == "cache_dir"}
            home = open_text(saved["charrnn"], charset, kept)
        windows = EvaluationWindows(tokens, seq_len, begin, end, dynamic_rows, burn_in)
        held_back = find_held_back(home.parts, None if other else split) if search else None
        result["dynamic"], found["dynamic"] = follow(
            model, windows, home.stream.tokens, form, lr, decay, held_back
        )
    last = found.get("dynamic", found["warm"])
    if last.unknown:
        result["unknown"] = {
            "characters": last.unknown, "nats": last.unknown_total, "of_mean": last.unknown_cost,
        }  # fmt: skip
    return result


def open_text(ours: dict, charset: Charset, data: dict) -> CharDataModule:
    """The text of a checkpoint, split as in training but for what data says otherwise; another one
    where data has a path. Raises InputError where the text has changed since the training."""
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
        text = CharDataModule(**settings | data)
    for key, corpus in text.corpora.items() if "path" not in data else ():
        before = ours["corpus"] if key == "data.path" else ours["corpus"].get(key, {})
        if (before["size"], before["sha256"]) != (len(corpus.tokens), corpus.sha256):
            raise InputError(
                f"{key}: the text has changed since the training; give a copy of that, or another"
                " one, with data.path=FILE"
            )
    return text


def trained_on(ours: dict) -> tuple[dict, tuple[int, int, int]]:
    """The sums of a checkpoint's texts, and how many characters trained, validated and tested."""
    data, corpus = ours["settings"].get("data"), ours.get("corpus")
    if not (data and corpus):
        raise InputError("checkpoint: does not say what it was trained on; give data.path=FILE")
    sizes = data.get("train_fraction"), data.get("valid_size"), data.get("test_size") or 0
    return corpus, split_sizes(corpus["size"], *sizes)


def one_or_all(values: list):
    """A list of one as that one."""
    return values[0] if len(values) == 1 else values


def has(part: Part) -> bool:
    """Whether a part has a character that can be scored."""
    return part[2] > max(1, part[1])


def find_held_back(parts: dict[str, Part], scored: str | None) -> Part:
    """What a search may look at, when a part of the same text is scored, or None of it."""
    tokens, begin, end = parts["valid"]
    if scored == "valid" or (scored != "train" and not has(parts["valid"])):
        tokens, begin, end = parts["train"]
        begin = end - end // 10
    part = tokens, begin, min(end, begin + SEARCHED)
    if scored == "all" or not has(part):
        raise InputError("evaluate.search: nothing of the text is left that is not scored")
    return part


def follow(
    model: nn.Module,
    windows: EvaluationWindows,
    training: Tensor,
    form: str,
    lr: float | None,
    decay: float | None,
    held_back: Part | None,
) -> tuple[dict, Figures]:
    """What is reported of dynamic evaluation; without held-back text lr and decay that are None
    are the defaults."""
    squares = None
    if form == "rms":
        squares = dynamic.mean_squares(model, training, windows.seq_len)
    tried = []
    if held_back:
        tokens, begin, end = held_back
        apart = EvaluationWindows(
            tokens, windows.seq_len, begin, end, windows.rows, windows.burn_in
        )

        def loss(lr: float, decay: float) -> float:
            nats = dynamic.evaluate(model, apart, lr, decay, squares).nats
            return nats if nats == nats else float("inf")

        lrs = dynamic.RATES[form] if lr is None else (lr,)
        lr, decay, tried = dynamic.search(loss, lrs, dynamic.DECAYS if decay is None else (decay,))
    lr, decay = DEFAULT_LR[form] if lr is None else lr, decay or 0.0
    figures = dynamic.evaluate(model, windows, lr, decay, squares)
    if not figures.total < float("inf"):
        raise InputError(f"evaluate.lr={lr}: the parameters left all bounds; give a lower one")
    settings = {"form": form, "lr": lr, "decay": decay, "seq_len": windows.seq_len}
    settings |= {"rows": windows.rows, "burn_in": windows.burn_in}
    if held_back:
        keys = ("lr", "decay", "nats")
        settings["search"] = {
            "characters": held_back[2] - held_back[1],
            "tried": [dict(zip(keys, values)) for values in tried],
        }
    return figures.report() | settings, figures


def table(result: dict) -> str:
    """What :func:`report` returned, for people."""
    files, windows = result["checkpoint"], result["windows"]
    each = zip(files, windows) if isinstance(files, list) else [(files, windows)]
    lines = [
        *(
            f"model    {escape_control(f)}" + ("" if n is None else f", window {n:,}")
            for f, n in each
        ),
        f"text     {result['split']}, {result['characters']:,} characters scored"
        f" (SHA-256 {result['sha256'][:12]}...)",
        "",
        f"{'':8}{'nats':>8}{'bpc':>9}{'perplexity':>12}{'first guess':>13}",
    ]
    notes = {
        "cold": "{rows} rows from a zero state",
        "warm": "{rows} rows read in over {burn_in} characters",
        "dynamic": "{form}, lr {lr:g}, decay {decay:g}, {seq_len} characters a step",
    }
    for kind, note in notes.items():
        if figures := result.get(kind):
            lines.append(
                "{kind:8}{nats:8.4f}{bpc:9.4f}{perplexity:12.4f}{accuracy:13.2%}   {note}".format(
                    kind=kind, note=note.format(**figures), **figures
                )
            )
    if search := result.get("dynamic", {}).get("search"):
        least = min(search["tried"], key=lambda one: one["nats"])
        lines.append(
            f"\nsearch   {len(search['tried'])} settings on {search['characters']:,} held-back"
            f" characters, least {least['nats']:.4f} nats"
        )
    if unknown := result.get("unknown"):
        share = unknown["characters"] / result["characters"]
        lines.append(
            f"\nunknown  {unknown['characters']:,} characters ({share:.2%}) that the model does not"
            f" know cost {unknown['nats']:,.1f} nats, {unknown['of_mean']:+.4f} of the mean"
        )
    return "\n".join(lines)


def write(result: dict, file: Path) -> None:
    """Write what :func:`report` returned as JSON, whole or not at all."""
    with atomic_write(file, "w") as f:
        f.write(json.dumps(result, indent=1) + "\n")
