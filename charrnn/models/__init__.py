"""Language models over characters: GRUEncode, GRUResize, ensembles."""

from charrnn.models.char_model import CharModel
from charrnn.models.ensemble import Ensemble
from charrnn.models.gru_encode import GRUEncode
from charrnn.models.gru_resize import GRUResize

__all__ = ["CharModel", "Ensemble", "GRUEncode", "GRUResize"]
