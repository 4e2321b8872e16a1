"""What the units do: activations, their properties, the page."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "compute_activations": "activations",
        "compute_gates": "activations",
        "correlations": "properties",
        "fill_page": "template",
        "index_label": "labels",
        "render_page": "page",
        "text_properties": "properties",
        "write_page": "page",
    },
)
