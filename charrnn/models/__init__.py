"""Language models over characters: GRUEncode, GRUResize, ensembles."""

from charrnn.models.gru_models import CharModel, GRUEncode, GRUResize

__all__ = ["CharModel", "GRUEncode", "GRUResize"]
