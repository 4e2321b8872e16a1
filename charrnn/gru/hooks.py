"""Private names of ``torch.nn``: whether anything listens to, or replaces, the calls of modules.

No other file of this room or of ``models`` touches them. tests/gru/test_hooks.py fails when torch
changes them.
"""

from torch import nn
from torch.nn.modules import module as torch_module


def has_hooks(model: nn.Module) -> bool:
    """Whether each module of a model must be called, and no kernel may compute in its place.

    That is so where a hook listens, to one of them or to all modules of the process, and where an
    object has a ``forward`` of its own in place of its class's. ``torch.nn.utils.weight_norm`` and
    pruning are such hooks too.
    """
    return torch_module._has_any_global_hook() or _is_heard(model)


def _is_heard(m: nn.Module) -> bool:
    """Whether that is so for a module or one in it: ``modules()`` takes longer, at each window."""
    if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
        return True
    own = vars(m)
    return "forward" in own or any(p is not None and _is_heard(p) for p in own["_modules"].values())


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module computes what its weight and its bias say, and nothing else.

    Not so where a hook listens, for a class derived from ``Linear``, as adapters and
    parametrizations make it, and for one without a bias, which the kernels take.
    """
    return type(module) is nn.Linear and module.bias is not None and not has_hooks(module)
