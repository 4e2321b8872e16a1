"""The recurrent layer: a readable reference, and one backend per device behind one signature.

Every backend is a module with the functions ``unsupported`` and ``forward``;
:mod:`charrnn.gru.reference` is the plain loop that the others are tested against.
"""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"BACKENDS": "module", "GATES": "module", "GRU": "module", "RESETS": "module"}
)
