"""Models of the experiments, for ``custom_imports``: a registered class each.

Classy Vision's ResNet has batch normalization only, and weights of float32.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from classy_vision.heads import ClassyHead
from classy_vision.models import ResNet, register_model
from torch import Tensor, nn


@register_model("resnet_group_norm")
class ResNetGroupNorm(ResNet):
    """``resnet_group_norm``: Classy Vision's ``resnet`` with groups of 8 channels normalized.

    Source: Wu and He, *Group Normalization*, ECCV 2018, https://arxiv.org/abs/1803.08494.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _replace_norms(self, _group_norm)


def _group_norm(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    groups = nn.GroupNorm(norm.num_features // 8, norm.num_features)
    nn.init.constant_(groups.weight, float(norm.weight[0]))  # zero_init_residual
    return groups


def _replace_norms(model: nn.Module, new: Callable[[nn.BatchNorm2d], nn.Module]) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, new(child))


@register_model("resnet_without_norm")
class ResNetWithoutNorm(ResNet):
    """``resnet_without_norm``: Classy Vision's ``resnet`` with nothing in place of its norms."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _replace_norms(self, lambda _: nn.Identity())


@register_model("resnet_bfloat16")
class ResNetBFloat16(ResNet):
    """``resnet_bfloat16``: Classy Vision's ``resnet`` with weights and activations in bfloat16."""

    def set_heads(self, heads: dict[str, list[ClassyHead]]) -> None:
        """Attaches the heads, whose scores are float32 for the loss, and converts all weights."""
        super().set_heads(heads)
        self.to(torch.bfloat16)
        for head in itertools.chain(*heads.values()):
            head.register_forward_hook(_as_float32)

    def forward(self, x: Tensor) -> Tensor:
        """Converts the images too."""
        return super().forward(x.to(torch.bfloat16))


def _as_float32(head: ClassyHead, inputs: tuple[Tensor, ...], scores: Tensor) -> Tensor:
    return scores.float()
