"""A model for elsewhere: safetensors, ONNX, one HTML page."""

from charrnn.export.exporter import ENDINGS, export

__all__ = ["ENDINGS", "export"]
