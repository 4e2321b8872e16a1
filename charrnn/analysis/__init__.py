"""What the units do: activations, their properties, the page."""

from charrnn.analysis.activations import compute_activations, compute_gates
from charrnn.analysis.labels import index_label
from charrnn.analysis.page import render_page, write_page
from charrnn.analysis.properties import correlations, text_properties

__all__ = [
    "compute_activations",
    "compute_gates",
    "correlations",
    "index_label",
    "render_page",
    "text_properties",
    "write_page",
]
