"""The recurrent layer: a readable reference, and one backend per device behind one signature.

Every backend is a module with the functions ``unsupported`` and ``forward``;
:mod:`charrnn.gru.reference` is the plain loop that the others are tested against.
"""

from charrnn.gru.module import BACKENDS, GATES, GRU, RESETS

__all__ = ["BACKENDS", "GATES", "GRU", "RESETS"]
