"""``layer_decay``: a learning rate that falls layer by layer from the head down."""

from typing import Any, ClassVar

from classy_vision.models import ResNeXt
from classy_vision.models.vision_transformer import VisionTransformer
from torch import nn

from classy_gc.options import NON_NEGATIVE, Rule
from classy_gc.param_groups import builder
from classy_gc.param_groups.builder import NamedParameter, OptimizerOptions
from classy_gc.param_groups.paramwise import Paramwise

_DECAY = Rule("a number in (0, 1]", lambda v: NON_NEGATIVE.accepts(v) and 0 < v <= 1)


@builder.register_param_group_builder("layer_decay")
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
        self, model: nn.Module, parameters: list[NamedParameter], optimizer: OptimizerOptions
    ) -> list[dict[str, Any]]:
        layers = self._layers(model)
        result = super().options(model, parameters, optimizer)
        for parameter, options in zip(parameters, result, strict=True):
            name, last = parameter.full_name, len(layers)
            layer = next((i for i, x in enumerate(layers) if name.startswith(x)), last)
            options["lr_mult"] = options.get("lr_mult", 1) * self.decay ** (last - layer)
        return result

    def _layers(self, model: nn.Module) -> list[tuple[str, ...]]:
        """The prefixes of each layer in order, without those of the last."""
        # Classy's wrapper of a model with heads passes for the model's class.
        if isinstance(model, VisionTransformer):
            stem = ("conv_proj.", "class_token", "encoder.pos_embedding")
            layers = model.encoder.layers.named_children()
            return [stem, *((f"encoder.layers.{name}.",) for name, _ in layers)]
        if isinstance(model, ResNeXt):
            stages = model.blocks.named_children()
            blocks = [(stage, block) for stage, m in stages for block, _ in m.named_children()]
            return [("initial_block.",), *((f"blocks.{x}.{y}.",) for x, y in blocks)]
        raise ValueError(
            f"{self.label()} knows the layers of vision_transformer and of the ResNets (resnet, "
            f"resnext, resnet18, resnet50, ...), not of {model.__class__.__name__}"
        )
