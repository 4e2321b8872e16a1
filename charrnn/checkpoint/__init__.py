"""What a run keeps on disk: format, atomic files, finding, reading, initializing from another."""

import importlib

_HOME = {
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
    "update_targets": "format",
    "find_checkpoint": "find",
    "find_newest": "find",
    "find_resumable": "find",
    "is_checkpoint": "find",
    "build_model": "build",
    "build_models": "build",
    "model_state_dict": "build",
    "report_mismatch": "build",
    "initialize_model": "initialize",
    "read_charset": "initialize",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a name on first use: ``files`` and ``find`` cost no import of torch."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
