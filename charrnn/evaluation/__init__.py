"""A text becomes nats: static, dynamic, scoring, lossless compression."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Compressor": "compression",
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
    },
)
