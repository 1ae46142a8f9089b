"""The kinds of modules that have rules of their own."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torchvision.ops import DeformConv2d

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
#: whose weights have a row for each unit, channel or word
LAYERS = (
    nn.Linear,
    nn.Bilinear,
    _ConvNd,
    DeformConv2d,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer: by its base class, or by ``norm`` in the name of it or
    of a base class, as in timm's ``RmsNorm``; one of :data:`LAYERS` is none.

    Example:
        >>> class ScaleNorm(nn.Module): ...
        >>> class NormedLinear(nn.Linear): ...
        >>> [is_norm(m) for m in (nn.RMSNorm(2), ScaleNorm(), NormedLinear(2, 2), nn.ReLU())]
        [True, True, False, False]
    """
    if isinstance(module, LAYERS):
        return False
    named = any("norm" in cls.__name__.lower() for cls in module.__class__.__mro__)
    return named or isinstance(module, _NORMS)


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a ``Conv2d`` with a group, more than one of them, for each input channel.

    Example:
        >>> [is_depthwise(nn.Conv2d(n, 8, 3, groups=n)) for n in (4, 1)]
        [True, False]
    """
    return isinstance(module, nn.Conv2d) and module.in_channels == module.groups > 1


def kind(module: nn.Module) -> str:
    """The class of a module, and what it counts as.

    Example:
        >>> kind(nn.Conv2d(4, 4, 3, groups=4)), kind(nn.BatchNorm2d(4)), kind(nn.Linear(2, 2))
        ('Conv2d, depthwise', 'BatchNorm2d, norm', 'Linear')
    """
    name = module.__class__.__name__
    if is_norm(module):
        return f"{name}, norm"
    return f"{name}, depthwise" if is_depthwise(module) else name
