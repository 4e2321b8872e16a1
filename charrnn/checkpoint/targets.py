"""Classes that settings name by a dotted path: which may be imported, and importing them.

Settings also come from untrusted checkpoints, so nothing is imported that was not allowed.
"""

import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable

from charrnn.errors import InputError, format_value, one_line


def is_below(name: str, packages: Iterable[str]) -> bool:
    """Whether a dotted name is that of a package, or of something in it."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def get_target(key: str, target: str) -> Callable:
    """Return what a ``_target_`` names. Raises InputError, naming the key, where there is nothing.

    Call it only for a target that is allowed: it imports the target's module.
    """
    try:
        return pkgutil.resolve_name(target)
    except Exception as error:
        raise InputError(f"{key}={format_value(target)}: {one_line(str(error))}") from error


def make_importable(packages: Iterable[str]) -> None:
    """Let allowed packages of the working directory be imported, as ``python -m`` does.

    The directory goes to the end of ``sys.path``, so that it hides no installed package.
    """
    for package in packages:
        top = package.partition(".")[0]
        is_missing = top and top not in sys.modules and importlib.util.find_spec(top) is None
        if is_missing and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
