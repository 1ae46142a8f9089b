"""``clip_grad_value``: keeps every element of the gradients within a value."""

from typing import Any, ClassVar

import torch
from classy_vision.hooks import register_hook
from torch.nn.utils import clip_grad_value_

from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.options import POSITIVE, REQUIRED


@register_hook("clip_grad_value")
class ClipGradValueHook(CheckedHook):
    """``clip_grad_value``: clips every element of the gradients to [−``value``, ``value``].

    It clips just before each step of any optimizer: after gradients are accumulated, clipped by
    Classy Vision's ``clip_grad_norm``, and unscaled, and before they are centralized.

    Args:
        value (float): the largest absolute value, > 0

    Raises:
        ValueError: an unknown or missing key, or a value that is not a number > 0.

    Source: :func:`torch.nn.utils.clip_grad_value_`.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "clip_grad_value", "value": 0.1}).value
        0.1
    """

    OPTIONS: ClassVar = {"value": (REQUIRED, POSITIVE)}

    def on_start(self, task: Any) -> None:
        """Starts clipping; a test-only task has no optimizer to clip for."""
        if task.optimizer is not None:
            task.optimizer.optimizer.register_step_pre_hook(self._clip)

    def _clip(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # GradScaler leaves its scale here if a fused kernel will unscale the gradients.
        scale = getattr(optimizer, "grad_scale", None)
        value = self.value if scale is None else self.value * float(scale)
        for group in optimizer.param_groups:
            clip_grad_value_(group["params"], value)
