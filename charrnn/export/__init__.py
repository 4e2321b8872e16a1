"""A model for elsewhere: safetensors, ONNX, torch."""

from charrnn.export.exporter import ENDINGS, export

__all__ = ["ENDINGS", "export"]
