"""The report of mode=evaluate: a checkpoint's loss on a text, cold, warm and dynamic."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from charrnn import checkpoint
from charrnn.data.windows import BURN_IN, EvaluationWindows
from charrnn.errors import InputError, check
from charrnn.evaluation.corpus import (
    Part,
    held_back_part,
    is_scorable,
    open_corpus,
    training_split,
)
from charrnn.evaluation.dynamic import (
    DECAYS,
    LEARNING_RATES,
    evaluate_dynamic,
    mean_squared_gradients,
    search_settings,
)
from charrnn.evaluation.static import evaluate
from charrnn.evaluation.totals import Totals

SEQ_LEN = 100
"""T of static evaluation, which does not change the result."""
DEFAULT_LR = {"sgd": 1e-2, "rms": 2e-5}
"""On 50,000 characters of tiny Shakespeare (H 128, L 2) the best of sgd was 2e-2, of rms 2e-5."""


def build_report(
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
    allow_targets: Sequence[str] = (),
) -> dict:
    """Evaluate a checkpoint, or an ensemble of several.

    Args:
        files: the checkpoints.
        data: settings of :class:`charrnn.data.datamodule.CharDataModule` that differ from those in
            training. With a ``path``, all of that text is scored unless ``split`` is given.
        split: train, valid, test or all; None is test where the text has that part, else valid.
        rows: of static evaluation; None as in :class:`charrnn.data.windows.EvaluationWindows`.
        burn_in: characters read before each row of the warm and the dynamic evaluation.
        dynamic: the form of dynamic evaluation, sgd or rms; None leaves it out.
        lr, decay, seq_len, dynamic_rows: settings of dynamic evaluation.
        search: search for those of lr and decay that are None, on text that is not scored: the
            validation part of the model's corpus, or, where that is scored, the last tenth of its
            training part.
        allow_targets: as in :func:`charrnn.load`.

    Returns:
        The report, in plain containers.

    Raises:
        InputError: a text is missing or has changed, or a setting is out of range.
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

    saved = [checkpoint.read(file) for file in files]
    model, charset = checkpoint.build_models(files, saved, allow_targets)
    ours, other = [one["charrnn"] for one in saved], "path" in data
    if not other or split not in (None, "all") or search:
        check_same_split(files, ours)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if other and split is None:
        split, data = "all", data | {"train_fraction": 1.0, "valid_size": None, "test_size": 0}
    text = open_corpus(ours[0], charset, data)
    if split is None:
        split = "test" if is_scorable(text.parts["test"]) else "valid"
    part = text.parts[split]
    if not is_scorable(part):
        raise InputError(f"evaluate.split={split}: the text has no such part; name another one")
    tokens, begin, end = part
    warm = EvaluationWindows(tokens, SEQ_LEN, begin, end, rows, burn_in)
    cold = EvaluationWindows(tokens, SEQ_LEN, begin, end, warm.rows, 0)
    totals = {"cold": evaluate(model, cold), "warm": evaluate(model, warm)}
    report = {
        "checkpoint": one_or_all([str(file) for file in files]),
        "windows": one_or_all([one.get("windows") for one in ours]),
        "sha256": text.corpora.get(f"data.{split}_path", text.corpus).sha256,
        "split": split,
        "characters": totals["warm"].characters,
        "cold": totals["cold"].report() | {"rows": cold.rows},
        "warm": totals["warm"].report() | {"rows": warm.rows, "burn_in": warm.burn_in},
    }
    if form:
        home = text
        if other and (search or form == "rms"):
            home_data = {key: value for key, value in data.items() if key == "cache_dir"}
            home = open_corpus(ours[0], charset, home_data)
        windows = EvaluationWindows(tokens, seq_len, begin, end, dynamic_rows, burn_in)
        held_back = held_back_part(home.parts, None if other else split) if search else None
        report["dynamic"], totals["dynamic"] = report_dynamic(
            model, windows, home.stream.tokens, form, lr, decay, held_back
        )
    last = totals.get("dynamic", totals["warm"])
    if last.unknown:
        report["unknown"] = {
            "characters": last.unknown, "nats": last.unknown_total, "of_mean": last.unknown_cost,
        }  # fmt: skip
    return report


def check_same_split(files: list[Path], ours: list[dict]) -> None:
    """Raise InputError unless all checkpoints of an ensemble held back the same text."""
    for file, one in zip(files, ours) if len(files) > 1 else ():
        if training_split(one) != training_split(ours[0]):
            raise InputError(
                f"{file}: trained on another text or another part of it than {files[0]}; together"
                " they are judged by the whole of one more, data.path=FILE"
            )


def report_dynamic(
    model: nn.Module,
    windows: EvaluationWindows,
    training: Tensor,
    form: str,
    lr: float | None,
    decay: float | None,
    held_back: Part | None,
) -> tuple[dict, Totals]:
    """Report dynamic evaluation, searching for the settings that are None on held-back text.

    Args:
        training: (N,) indices of the training text, for the rms form.
        held_back: None takes the defaults for the settings that are None.
    """
    squares = None
    if form == "rms":
        squares = mean_squared_gradients(model, training, windows.seq_len)
    tried = []
    if held_back:
        tokens, begin, end = held_back
        held_back_windows = EvaluationWindows(
            tokens, windows.seq_len, begin, end, windows.rows, windows.burn_in
        )

        def loss(lr: float, decay: float) -> float:
            nats = evaluate_dynamic(model, held_back_windows, lr, decay, squares).nats
            return nats if nats == nats else float("inf")

        lrs = LEARNING_RATES[form] if lr is None else (lr,)
        lr, decay, tried = search_settings(loss, lrs, DECAYS if decay is None else (decay,))
    lr, decay = DEFAULT_LR[form] if lr is None else lr, decay or 0.0
    totals = evaluate_dynamic(model, windows, lr, decay, squares)
    if not totals.total < float("inf"):
        raise InputError(f"evaluate.lr={lr}: the parameters left all bounds; give a lower one")
    settings = {"form": form, "lr": lr, "decay": decay, "seq_len": windows.seq_len}
    settings |= {"rows": windows.rows, "burn_in": windows.burn_in}
    if held_back:
        keys = ("lr", "decay", "nats")
        settings["search"] = {
            "characters": held_back[2] - held_back[1],
            "tried": [dict(zip(keys, values)) for values in tried],
        }
    return totals.report() | settings, totals


def one_or_all(values: list):
    """Return the only value of a list of one, and longer lists as they are."""
    return values[0] if len(values) == 1 else values
