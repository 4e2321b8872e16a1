"""Gated recurrent units: one module, several backends.

Every backend is a module of this package with the same two functions, ``unsupported`` and
``forward``; :mod:`charrnn.gru.reference` is the plain loop that the others are tested against.
"""

from charrnn.gru.module import BACKENDS, GATES, GRU, RESETS

__all__ = ["BACKENDS", "GATES", "GRU", "RESETS"]
