"""The kinds of modules that have their own rules."""

from __future__ import annotations

import re

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torchvision.ops import DeformConv2d

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
#: layers whose weights have a row for each unit, channel or word
LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, DeformConv2d, nn.Embedding, nn.EmbeddingBag)
LAYERS += (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer, by its base class or its name.

    The name counts if ``norm`` is a word in the name of its class or a base class, as in timm's
    ``RmsNorm``; a module of :data:`LAYERS` is never a norm layer.

    Example:
        >>> class ScaleNorm(nn.Module): ...
        >>> class SurfaceNormalHead(nn.Module): ...
        >>> class NormedLinear(nn.Linear): ...
        >>> modules = nn.RMSNorm(2), ScaleNorm(), SurfaceNormalHead(), NormedLinear(2, 2)
        >>> [is_norm(module) for module in modules]
        [True, True, False, False]
    """
    if isinstance(module, LAYERS):
        return False
    return isinstance(module, _NORMS) or _is_named_norm(module)


def _is_named_norm(module: nn.Module) -> bool:
    return any(
        word.lower() == "norm"
        for cls in type(module).__mro__
        for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", cls.__name__)
    )


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a convolution with one group per input channel, and more than one.

    Example:
        >>> [is_depthwise(nn.Conv2d(n, 8, 3, groups=n)) for n in (4, 1)]
        [True, False]
    """
    convolution = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return convolution and module.in_channels == module.groups > 1


def kind(module: nn.Module) -> str:
    """The class of a module, and the kind that it counts as.

    Example:
        >>> kind(nn.Conv2d(4, 4, 3, groups=4)), kind(nn.BatchNorm2d(4)), kind(nn.Linear(2, 2))
        ('Conv2d, depthwise', 'BatchNorm2d, norm', 'Linear')
    """
    name = type(module).__name__
    if is_norm(module):
        return f"{name}, norm" if isinstance(module, _NORMS) else f"{name}, norm by its name"
    return f"{name}, depthwise" if is_depthwise(module) else name
