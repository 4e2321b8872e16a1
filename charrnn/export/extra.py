"""Packages of the extras "export" and "hub", which not every installation has."""

import importlib
from types import ModuleType

from charrnn.errors import InputError


def import_extra(module: str, extra: str = "export") -> ModuleType:
    """Import a module of an extra. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f'{module.partition(".")[0]} is not installed: pip install "charrnn[{extra}]"'
        ) from error
