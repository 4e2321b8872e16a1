"""Benchmarks: ``python -m charrnn.benchmarks.NAME``. Rivals alternate with ours in one process."""
