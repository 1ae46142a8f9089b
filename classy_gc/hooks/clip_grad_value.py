"""``clip_grad_value``: keeps every element of the gradients within a value."""

from __future__ import annotations

from typing import Any

import torch
from classy_vision.hooks import ClassyHook, register_hook
from torch.nn.utils import clip_grad_value_

from classy_gc.options import POSITIVE, check_known, check_options


@register_hook("clip_grad_value")
class ClipGradValueHook(ClassyHook):
    """``clip_grad_value``: clips every element of the gradients to [−``value``, ``value``].

    Just before each step of any optimizer: after gradients are accumulated, clipped by Classy
    Vision's own ``clip_grad_norm``, and unscaled, and before they are centralized.

    Args:
        value (float): > 0

    Raises:
        ValueError: an unknown or missing key, or a value that is not a number > 0.

    Source: :func:`torch.nn.utils.clip_grad_value_`.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "clip_grad_value", "value": 0.1}).value
        0.1
    """

    on_phase_start = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(self, value: float) -> None:
        super().__init__()
        check_options({"value": value}, {"value": (None, POSITIVE)}, "hook 'clip_grad_value'")
        self.value = value
        self._handle: Any = None

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ClipGradValueHook:
        """Instantiates the hook from a configuration: its arguments, by name."""
        check_known(config, ["value"], "hook 'clip_grad_value'")
        if "value" not in config:
            raise ValueError("missing key 'value' in hook 'clip_grad_value'")
        return cls(**config)

    def on_start(self, task: Any) -> None:
        """Begins to clip; a task that only tests has no optimizer to clip for."""
        if task.optimizer is not None:
            self._handle = task.optimizer.optimizer.register_step_pre_hook(self._clip)

    def on_end(self, task: Any) -> None:
        """Stops, so that a task trained again does not clip twice."""
        if self._handle is not None:
            self._handle.remove()

    def _clip(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # GradScaler leaves its scale here where a fused kernel is to unscale the gradients.
        scale = getattr(optimizer, "grad_scale", None)
        value = self.value if scale is None else self.value * float(scale)
        for group in optimizer.param_groups:
            clip_grad_value_(group["params"], value)
