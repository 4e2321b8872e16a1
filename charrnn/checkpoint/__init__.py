"""What a run keeps on disk: format, atomic files, finding, reading, initializing from another."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "atomic_write": "files",
        "link": "files",
        "sync": "files",
        "Damaged": "serialization",
        "checksum": "serialization",
        "save": "serialization",
        "FORMAT": "format",
        "METADATA": "format",
        "MOVED": "format",
        "PREFIX": "format",
        "read": "format",
        "update_settings": "format",
        "find_checkpoint": "find",
        "find_newest": "newest",
        "find_resumable": "newest",
        "is_checkpoint": "find",
        "build_model": "build",
        "build_models": "build",
        "model_state_dict": "build",
        "report_mismatch": "build",
        "get_target": "targets",
        "is_below": "targets",
        "make_importable": "targets",
        "initialize_model": "initialize",
        "read_charset": "initialize",
    },
)
