"""Language models over characters: GRUEncode, GRUResize, LSTM, MinGRU, ensembles, and your own."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CharModel": "char_model",
        "Ensemble": "ensemble",
        "GRUEncode": "gru_encode",
        "GRUResize": "gru_resize",
        "LSTM": "lstm",
        "MinGRU": "min_gru",
        "RecurrentModel": "contract",
    },
)
