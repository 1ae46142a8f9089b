"""The kinds of modules that have their own rules, and which parameters are weights of layers."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import ParametrizationList
from torchvision.ops import DeformConv2d

from classy_gc.param_groups.builder import NamedParameter

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
    names = " ".join(cls.__name__ for cls in type(module).__mro__)
    words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", names)
    norm = isinstance(module, _NORMS) or "norm" in map(str.lower, words)
    return norm and not isinstance(module, LAYERS)


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


def no_layer_weight_reason(parameter: NamedParameter) -> str | None:
    """Why a parameter is not the weight of a layer, or ``None`` if it is.

    Layers are linear, convolution, embedding, recurrent and attention modules: torch's,
    ``torchvision.ops.DeformConv2d``, and classes derived from them. In their weights a row belongs
    to a unit, a channel or a word, as gradient centralization assumes. But GC looks only at shapes,
    and so also centralizes everything else that has rows.

    Args:
        parameter: with the modules that hold it. A parametrized weight (``weight_norm``, …) belongs
            to the module that it was taken from.

    Returns:
        None, or the kind of the parameter and the class of its module. A normalization is
        recognized by its base class, or by ``norm`` in its name.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from classy_gc.param_groups import parameter_occurrences
        >>> class Encoder(nn.Sequential):
        ...     def __init__(self):
        ...         super().__init__(nn.Linear(4, 4), nn.LayerNorm([4, 4]))
        ...         self.positions = nn.Parameter(torch.zeros(1, 4, 4))
        >>> for p in parameter_occurrences(Encoder()):
        ...     print(p.full_name, no_layer_weight_reason(p))
        positions no layer: Encoder
        0.weight None
        0.bias bias: Linear
        1.weight normalization: LayerNorm
        1.bias normalization: LayerNorm
    """
    module = parameter.module
    if isinstance(module, ParametrizationList):
        module = parameter.parents[-2]  # above the dict of the module's parametrizations
    name = module.__class__.__name__
    if isinstance(module, LAYERS):
        # Attention has biases with the shape of a weight: bias_k, of shape [1, 1, d].
        return f"bias: {name}" if parameter.name.startswith("bias") else None
    return f"normalization: {name}" if is_norm(module) else f"no layer: {name}"
