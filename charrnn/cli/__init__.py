"""Settings in, a run out: Hydra, overrides, schema, the commands."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Command": "arguments",
        "Job": "prepare",
        "Program": "arguments",
        "Run": "prepare",
        "check_settings": "schema",
        "one_line_errors": "errors",
    },
)
