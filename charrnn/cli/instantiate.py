"""Hydra's ``instantiate``, with errors that name the key that they are about."""

from collections.abc import Mapping

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from charrnn.cli.errors import instantiation_key, name_key
from charrnn.cli.overrides import escape


def instantiate(prefix: str, node: Mapping, *args, **kwargs):
    """Build what the ``_target_`` of a node names, and the parts below it.

    Args:
        prefix: the node's key, for messages.
        args, kwargs: further arguments; a keyword takes the position of the node's.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    plain = {key: value for key, value in plain.items() if key not in kwargs}
    texts = {key: value for key, value in kwargs.items() if isinstance(value, str)}
    plain |= texts  # to be escaped like the others
    kwargs = {key: value for key, value in kwargs.items() if key not in texts}
    try:
        # Escaped twice: instantiate resolves its settings, and then reads them as it resolves.
        return hydra.utils.instantiate(escape(escape(plain)), *args, **kwargs)
    except InstantiationException as error:
        where = instantiation_key(error)
        raise name_key(where or prefix, node, error.__cause__ or error) from error


def get_class(node: Mapping) -> type:
    """The class or function that the ``_target_`` of a node names."""
    return hydra.utils.get_object(node["_target_"])
