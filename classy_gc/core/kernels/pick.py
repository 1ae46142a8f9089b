"""Picks the kernel that steps a parameter group."""

import os
from importlib import import_module
from typing import Any

from torch.optim import Optimizer


def pick(optimizer: Optimizer, group: dict[str, Any]) -> tuple[Any, str | None]:
    """Picks the kernel that steps a group, as far as the group's options tell.

    Args:
        optimizer: the one with the group; the kernels may know its class.
        group: one of its parameter groups.

    Returns:
        The kernel's module and None, or None and the reason why there is no kernel.

    Raises:
        ValueError: ``CLASSY_GC_KERNELS`` has an unknown value.
    """
    choice = os.environ.get("CLASSY_GC_KERNELS", "")
    if choice not in ("", "0", "triton"):
        raise ValueError(f"Invalid CLASSY_GC_KERNELS: {choice!r}, must be 0, triton, or unset")
    if choice == "0":
        return None, "CLASSY_GC_KERNELS is 0"
    if optimizer.kernel_update is None:
        return None, f"there is no kernel for {type(optimizer).__name__}"
    if not group["use_gc"] and not (group.get("fused") and optimizer.kernel_without_gc):
        return None, "use_gc is off"
    fused = group.get("fused")  # which torch's RAdam and RMSprop lack
    if fused is None and group["foreach"] is not None:
        return None, "foreach is set"
    if fused is not None and not fused:
        return None, "fused is off"
    for name in ("differentiable", "capturable", "lr_decay"):
        if group.get(name):
            return None, f"{name} is on"
    device = group["params"][0].device.type if group["params"] else "cpu"
    kernel = _kernel(device, choice)
    if kernel is None:
        return None, f"there is no kernel for {device}"
    reason = kernel.missing()
    return (None if reason else kernel), reason


def _kernel(device: str, choice: str) -> Any:
    if choice == "triton" and (device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"):
        return import_module("classy_gc.core.kernels.triton_rows")
    return import_module("classy_gc.core.kernels.rows") if device == "cpu" else None
