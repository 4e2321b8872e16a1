"""Language models over characters: GRUEncode, GRUResize, LSTM, MinGRU, ensembles, and your own."""

from charrnn.models.char_model import CharModel
from charrnn.models.contract import RecurrentModel
from charrnn.models.ensemble import Ensemble
from charrnn.models.gru_encode import GRUEncode
from charrnn.models.gru_resize import GRUResize
from charrnn.models.lstm import LSTM
from charrnn.models.min_gru import MinGRU

__all__ = [
    "LSTM", "CharModel", "Ensemble", "GRUEncode", "GRUResize", "MinGRU", "RecurrentModel"
]  # fmt: skip
