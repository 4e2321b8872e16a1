"""A text becomes nats: static, dynamic, scoring."""

import importlib

_HOME = {
    "Totals": "totals",
    "evaluate": "static",
    "score": "static",
    "score_many": "static",
    "evaluate_dynamic": "dynamic",
    "mean_squared_gradients": "dynamic",
    "search_settings": "dynamic",
    "score_table": "scoring",
    "build_report": "report",
    "format_report": "format",
    "write_report": "format",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a name on first use: ``report`` imports Lightning, which scoring does not need."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
