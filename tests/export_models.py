"""Checkpoints to export: every variant of a small model, over characters of one to four bytes."""

import pytest
from small_models import saved_model

from charrnn import GRUEncode, GRUResize
from charrnn.checkpoint import save

ALPHABET = "\0\x1b ab\u00e9\u4e16\U0001f600"
VARIANTS = [
    (kind, reset, gate)
    for kind in (GRUEncode, GRUResize)
    for reset in ("after", "before")
    for gate in ("sigmoid", "hard_sigmoid")
]
variants = pytest.mark.parametrize(
    ("kind", "reset", "gate"), VARIANTS, ids=lambda v: getattr(v, "__name__", v)
)


def saved(folder, kind, reset, gate, **settings):
    """A model of a variant, its charset, and the file of its checkpoint."""
    model, charset, whole = saved_model(kind, ALPHABET, reset=reset, gate=gate, **settings)
    save(whole, folder / "model.ckpt")
    return model, charset, folder / "model.ckpt"
