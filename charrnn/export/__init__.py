"""A model for elsewhere: one HTML page, a folder for a hub, safetensors, ONNX, torch."""

from charrnn.export.exporter import ENDINGS, export

__all__ = ["ENDINGS", "export"]
