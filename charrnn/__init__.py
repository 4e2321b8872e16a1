"""charrnn: character-level recurrent language models.

>>> model = charrnn.load("outputs/2026-01-01/12-00-00")
>>> print(model.generate("def ", length=200))
"""

import importlib
from collections.abc import Callable

__version__ = "0.2.0"


def lazy_names(package: str, modules: dict[str, str]) -> tuple[Callable, Callable, list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports names on use.

    So ``import charrnn`` by itself costs nothing, and a file of a room that needs neither torch nor
    Lightning is imported without them.

    Args:
        package: its name.
        modules: the module of each public name, without the package's name.
    """

    def __getattr__(name: str):
        if name in modules:
            return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(modules)

    return __getattr__, __dir__, sorted(modules)


get_name, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Charset": "data.charset",
        "GRU": "gru",
        "GRUEncode": "models",
        "GRUResize": "models",
        "InputError": "errors",
        "LanguageModel": "api",
        "RowStream": "data.stream",
        "load": "api",
        "train": "api",
    },
)


def __getattr__(name: str):
    if name in ("GRU", "GRUEncode", "GRUResize", "LanguageModel", "load", "train"):
        importlib.import_module("charrnn.gru.build").begin()  # while torch is imported
    return get_name(name)
