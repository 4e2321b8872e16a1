"""Packages of the extra "export", which not every installation has."""

import importlib
from types import ModuleType

from charrnn.errors import InputError


def import_extra(module: str) -> ModuleType:
    """Import a module of the extra. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f'{module.partition(".")[0]} is not installed: pip install "charrnn[export]"'
        ) from error
