"""Text files become windows of indices: files, charset, corpus, cache, stream, datamodule."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
