"""Tells weights of a layer from parameters that only have the shape of one."""

from __future__ import annotations

from torch.nn.utils.parametrize import ParametrizationList

from classy_gc.param_groups.builder import NamedParameter
from classy_gc.param_groups.kinds import LAYERS, is_norm


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
    if is_norm(module):
        return f"normalization: {name}"
    return f"no layer: {name}"
