"""charrnn: character-level language models with gated recurrent units.

>>> model = charrnn.load("outputs/2026-01-01/12-00-00")
>>> print(model.generate("def ", length=200))
"""

import importlib

__version__ = "0.2.0"

_HOME = {
    "load": "charrnn.api",
    "Charset": "charrnn.data.charset",
    "InputError": "charrnn.errors",
    "GRU": "charrnn.gru",
    "GRUEncode": "charrnn.models",
    "GRUResize": "charrnn.models",
    "RowStream": "charrnn.data.stream",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a public name when it is first used: ``import charrnn`` alone costs nothing."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
