"""A model for elsewhere: safetensors, ONNX, torch."""
