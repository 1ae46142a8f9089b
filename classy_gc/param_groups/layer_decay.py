"""``layer_decay``: a learning rate that falls layer by layer from the head down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from classy_vision.models import MODEL_REGISTRY, ResNeXt
from classy_vision.models.vision_transformer import VisionTransformer
from torch import nn

from classy_gc.options import NON_NEGATIVE, Rule
from classy_gc.param_groups.builder import NamedParameter
from classy_gc.param_groups.multipliers import OptimizerOptions
from classy_gc.param_groups.paramwise import Paramwise
from classy_gc.param_groups.registry import register_param_group_builder

_DECAY = Rule("a number in (0, 1]", lambda v: NON_NEGATIVE.accepts(v) and 0 < v <= 1)


@register_param_group_builder("layer_decay")
class LayerDecay(Paramwise):
    """``layer_decay``: ``lr · decay^(last − layer)``, for fine-tuning.

    Layer 0 is the embedding of a ``vision_transformer`` (patches, class token, positions) or
    the stem of a ResNet; then each encoder layer or residual block is a layer; the last layer is
    everything after them, with the heads and the loss.

    Args:
        decay (float): in (0, 1]; 1 is the same rate for all (default: 0.75)
        **options: all of :class:`Paramwise`; the layer's factor also multiplies ``lr_mult``, and an
            ``lr`` in ``custom_keys``.

    Raises:
        ValueError: as in :class:`Paramwise`, or a model that is neither of the two.

    Source: https://arxiv.org/abs/2003.10555; https://arxiv.org/abs/2106.08254.

    Example:
        >>> import torch
        >>> from classy_vision.models import build_model
        >>> from classy_vision.optim import build_optimizer
        >>> from classy_gc.param_groups import build_param_groups
        >>> model = build_model({"name": "resnet", "num_blocks": [1, 1], "small_input": True})
        >>> optimizer = build_optimizer({"name": "sgd_gc", "lr": 1.0})
        >>> groups = build_param_groups(LayerDecay(decay=0.5), model, optimizer)
        >>> sorted({group["lr"](0) for group in groups})
        [0.125, 0.25, 0.5]
    """

    OPTIONS: ClassVar = {**Paramwise.OPTIONS, "decay": (0.75, _DECAY)}

    def options(
        self,
        model: nn.Module,
        parameters: Sequence[NamedParameter],
        optimizer: OptimizerOptions,
    ) -> list[dict[str, Any]]:
        optimizer.require("lr_mult", f"decay of {self.label()}")
        stem, layers = self._layers(model)
        result = super().options(model, parameters, optimizer)
        for parameter, options in zip(parameters, result, strict=True):
            layer = len(layers) + 1
            if parameter.full_name.startswith(stem):
                layer = 0
            for i, prefix in enumerate(layers, start=1):
                if parameter.full_name.startswith(prefix):
                    layer = i
            factor = self.decay ** (len(layers) + 1 - layer)
            options["lr_mult"] = options.get("lr_mult", 1) * factor
        return result

    def _layers(self, model: nn.Module) -> tuple[tuple[str, ...], list[str]]:
        """The prefixes of the stem, and of each layer in order."""
        # Classy's wrapper of a model with heads passes for the model's class.
        if isinstance(model, VisionTransformer):
            layers = [
                f"encoder.layers.{name}." for name, _ in model.encoder.layers.named_children()
            ]
            return ("conv_proj.", "class_token", "encoder.pos_embedding"), layers
        if isinstance(model, ResNeXt):
            stages = model.blocks.named_children()
            return ("initial_block.",), [
                f"blocks.{stage}.{block}." for stage, m in stages for block, _ in m.named_children()
            ]
        names = sorted(
            name
            for name, c in MODEL_REGISTRY.items()
            if issubclass(c, (VisionTransformer, ResNeXt))
        )
        raise ValueError(
            f"{self.label()} knows the layers of {', '.join(names)}, not of "
            f"{model.__class__.__name__}"
        )
