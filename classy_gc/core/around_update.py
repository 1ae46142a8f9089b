"""GC around an update without GC: torch's own, or any other optimizer's."""

from itertools import compress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from classy_gc.core._torch import OWN_TYPES, sameness
from classy_gc.core.centralization import HALF, ineligible_reason, local_rows
from classy_gc.core.half_precision import StandIns
from classy_gc.core.kernels.rows import row_means, set_row_means_
from classy_gc.core.memory import check_dense, lay_out_gradient, lay_out_state, shared_memory
from classy_gc.core.options import check_moments, is_torchs

_Group = dict[str, Any]
# Of each optimizer the options of its groups when they were last checked, a test of tensors, and
# whether GC acts on each parameter that has a gradient.
_checked: WeakKeyDictionary[Optimizer, tuple[list[Any], Any, list[bool]]] = WeakKeyDictionary()


def check_gradients(optimizer: Optimizer, groups: list[_Group]) -> list[tuple[_Group, Tensor]]:
    """Refuses gradients that torch's step and GC around it cannot handle, and lays out the others.

    Args:
        optimizer: of any class.
        groups: the parameter groups whose update GC wraps.

    Returns:
        The parameters that GC acts on, each after its group.

    Raises:
        RuntimeError: a gradient that GC would act on is sparse.
        ValueError: fused kernels would read past a parameter that has become a strided view, or
            past a state of another shape.
    """
    pairs = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
    grads = [p.grad for _, p in pairs]
    states = [optimizer.state.get(p, {}) for group, p in pairs if group.get("fused")]
    tensors = [*(p for _, p in pairs), *grads]
    tensors += [x for state in states for x in state.values() if isinstance(x, Tensor)]
    names = ("fused", "use_gc", "gc_conv_only")
    options = [[len(group["params"]), *map(group.get, names)] for group in groups]
    options.append([len(pairs), len(tensors)])
    before, same, eligible = _checked.get(optimizer, (None, None, []))
    if options == before and same(*tensors):
        return list(compress(pairs, eligible))
    fused = [group for group in groups if group.get("fused")]
    check_moments(fused, optimizer.state, any(map(is_torchs, type(optimizer).__mro__)))
    eligible = [_check_gradient(optimizer, group, p) for group, p in pairs]
    unchanged = all(p.grad is g for (_, p), g in zip(pairs, grads, strict=True))
    if unchanged and all(type(x) in OWN_TYPES and x.layout is torch.strided for x in tensors):
        _checked[optimizer] = options, sameness(tensors), eligible
    return list(compress(pairs, eligible))


def _check_gradient(optimizer: Optimizer, group: _Group, p: Tensor) -> bool:
    """Whether GC acts on a parameter, whose gradient and state are checked and laid out."""
    switches = {name: group[name] for name in ("use_gc", "gc_conv_only")}
    eligible = ineligible_reason(p, **switches) is None
    if eligible and p.grad.layout != torch.strided:
        raise RuntimeError(
            f"{type(optimizer).__name__} with use_gc=True takes no gradients of layout "
            f"{p.grad.layout}: set use_gc=False for their parameter group"
        )
    fused = group.get("fused")
    if fused:
        check_dense([p])
        lay_out_state(p, optimizer.state.get(p, {}).values())
    if fused or group["use_gc"]:
        lay_out_gradient(p, fused)
    return eligible


def update_around(
    optimizer: Optimizer, groups: list[_Group], eligible: list[tuple[_Group, Tensor]]
) -> None:
    """Steps groups by the optimizer's ``update_without_gc``, with GC before or after it.

    Args:
        optimizer: of any class.
        groups: the parameter groups to step.
        eligible: from :func:`check_gradients`.
    """
    # torch allows a parameter to be in a group twice.
    before = {p: group for group, p in eligible if group.get("gc_loc", True)}
    after = list(dict.fromkeys(p for group, p in eligible if not group.get("gc_loc", True)))
    if before:
        _centralize_gradients(optimizer, before)
    stand_ins = StandIns(optimizer, groups, [p for p in after if p.dtype in HALF])
    weights = [local_rows(stand_ins.of.get(p, p)) for p in after]
    means = row_means(weights)
    stand_ins.run()
    set_row_means_(weights, means)
    stand_ins.write_back()


def _centralize_gradients(optimizer: Optimizer, groups: dict[Tensor, _Group]) -> None:
    """Shifts the rows of the gradients so that the update's ``g + wd·p`` is centralized."""
    every = dict.fromkeys(p for group in optimizer.param_groups for p in group["params"])
    shared = shared_memory([*every, *(p.grad for p in every if p.grad is not None)])
    # GradScaler leaves its scale here if the fused kernel will unscale the gradient itself.
    scale = getattr(optimizer, "grad_scale", None)
    decays = row_means(
        [local_rows(p) for p, group in groups.items() if _l2_decay(optimizer, group)]
    )
    means: list[Tensor | None] = []
    for p, group in groups.items():
        if id(p.grad) in shared:
            p.grad = p.grad.clone()  # so that it is shifted for this parameter only
        wd = _l2_decay(optimizer, group)
        mean = decays.pop(0).mul_(-wd) if wd else None
        means.append(mean if mean is None or scale is None else mean.mul_(scale.to(mean.device)))
    set_row_means_([local_rows(p.grad) for p in groups], means)


def _l2_decay(optimizer: Optimizer, group: _Group) -> Any:
    if group.get("decoupled_weight_decay", optimizer.decoupled_weight_decay):
        return 0
    wd = group.get("weight_decay", 0)
    # With maximize the update negates the gradient: μ(−g + wd·p) = −μ(g − wd·p).
    return -wd if group.get("maximize") else wd
