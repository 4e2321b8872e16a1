"""Text files become windows of indices: files, charset, corpus, cache, stream, datamodule."""

import importlib

_HOME = {
    "Charset": "charset",
    "CharDataModule": "datamodule",
    "Corpus": "corpus",
    "EvaluationWindows": "windows",
    "RowStream": "stream",
    "Window": "stream",
    "find_files": "files",
    "open_corpus": "corpus",
    "read_text": "text",
    "split_sizes": "split",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a public name when it is first used, so that only datamodule imports Lightning."""
    if name in _HOME:
        return getattr(importlib.import_module(f"charrnn.data.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
