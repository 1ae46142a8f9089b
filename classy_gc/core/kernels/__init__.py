"""GC and the update in one pass over memory, where there is a kernel for it.

Reading a gradient a second time is what GC costs; a row that has just been summed is still in
the cache when it is updated. :mod:`classy_gc.core.kernels.rows` does so on the CPU. Where there
is no kernel, GC goes around torch's own step (:mod:`classy_gc.core.around_update`), with the same
numbers to rounding.

The environment variable ``CLASSY_GC_KERNELS`` is unset for the C kernel on the CPU, ``triton`` for
:mod:`classy_gc.core.kernels.triton_rows` on CUDA besides, or ``0`` for no kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from classy_gc.core._torch import scaling
from classy_gc.core.kernels import rows

if TYPE_CHECKING:
    from classy_gc.core.centralized_optimizer import CentralizedOptimizer


def _kernel(params: Iterable[Tensor]) -> Any:
    """The module of the kernel for parameters."""
    choice = os.environ.get("CLASSY_GC_KERNELS", "")
    if choice not in ("", "0", "triton"):
        raise ValueError(f"Invalid CLASSY_GC_KERNELS: {choice!r}, must be 0, triton, or unset")
    if choice == "triton" and (
        os.environ.get("TRITON_INTERPRET") == "1" or any(p.is_cuda for p in params)
    ):
        return import_module("classy_gc.core.kernels.triton_rows")
    return rows


def why_not(optimizer: CentralizedOptimizer, group: dict[str, Any]) -> str | None:
    """Why no kernel steps a group, as far as its options say; None if one does."""
    if os.environ.get("CLASSY_GC_KERNELS") == "0":
        return "CLASSY_GC_KERNELS is 0"
    if optimizer.kernel_update is None:
        return f"there is no kernel for {type(optimizer).__name__}"
    if not group["use_gc"] and not (group["fused"] and optimizer.kernel_without_gc):
        return "use_gc is off"
    if group["fused"] is None and group["foreach"] is not None:
        return "foreach is set"
    if group["fused"] is not None and not group["fused"]:
        return "fused is off"
    for name in ("differentiable", "capturable"):
        if group.get(name):
            return f"{name} is on"
    kernel = _kernel(group["params"])
    for p in group["params"][:1]:
        if kernel is rows and not p.is_cpu:
            return f"there is no kernel for {p.device.type}"
    return kernel.missing()


class Found(NamedTuple):
    """A group that a kernel can step, the kernel's module, and what it has to know of tensors."""

    kernel: Any
    params: list[Tensor]
    grads: list[Tensor]
    rows: rows.Rows


def find(optimizer: CentralizedOptimizer, group: dict[str, Any]) -> Found | None:
    """What a kernel needs to step a group, or None if none can."""
    if why_not(optimizer, group) is not None:
        return None
    pairs = [(p, g) for p in group["params"] if (g := p.grad) is not None]
    params, grads = [p for p, _ in pairs], rows.local([g for _, g in pairs])
    known = vars(optimizer).setdefault("_rows", {})
    switches = bool(group["use_gc"]), bool(group["gc_conv_only"])
    last, kernel = known.pop(id(group), None), _kernel(params)
    found = rows.find_rows(rows.local(params), grads, *switches, last, kernel.usable)
    if found is None:
        return None
    known[id(group)], grads = found
    return Found(kernel, params, grads, known[id(group)])


def step(optimizer: CentralizedOptimizer, group: dict[str, Any], found: Found) -> None:
    """Steps a group with a kernel; ``found`` is what :func:`find` gave."""
    scale, found_inf = scaling(optimizer)
    sign = -1.0 if group["maximize"] else 1.0
    if scale is not None:
        sign = sign / scale.double()
    if found_inf is not None:
        sign = sign * (found_inf == 0)
        # With dampening the first step is another, and only those that are taken count.
        if (found_inf.is_cpu or group.get("dampening")) and not sign:
            return
    update = optimizer.kernel_update(group, found.params)
    decoupled = group.get("decoupled_weight_decay", optimizer.decoupled_weight_decay)
    wd = float(group["weight_decay"])
    numbers = {
        "lr": float(group["lr"]),
        "l2": 0.0 if decoupled else wd,
        "decoupled": wd if decoupled else 0.0,
        "sign": sign,
        **update.numbers,
    }
    where = "before" if group.get("gc_loc", True) else "after"
    found.kernel.step(
        update._replace(numbers=numbers, flags={*update.flags, where}), found.rows, found.grads
    )
    torch.autograd.graph.increment_version(found.params)
