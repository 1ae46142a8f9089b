"""GC around an update that knows nothing of it: torch's own, or any other optimizer's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter

from classy_gc.core._torch import OWN_TYPES, local_tensor
from classy_gc.core.centralization import (
    HALF,
    ineligible_reason,
    local_rows,
    row_means,
    shift_rows_,
)
from classy_gc.core.memory import check_dense, lay_out_gradient, lay_out_state

if TYPE_CHECKING:
    from classy_gc.core.centralized_optimizer import CentralizedOptimizer

_Group = dict[str, Any]


def centralizes(group: _Group, p: Tensor) -> bool:
    """Whether GC acts on a parameter of a group."""
    reason = ineligible_reason(p, use_gc=group["use_gc"], gc_conv_only=group["gc_conv_only"])
    return reason is None


def check_gradients(optimizer: CentralizedOptimizer, group: _Group) -> None:
    """Refuses what torch's own step and GC around it cannot work on, and lays out what they can.

    Raises:
        RuntimeError: a gradient that GC would act on is sparse.
        ValueError: fused kernels would read past a parameter, which has become a strided view.
    """
    params = [p for p in group["params"] if p.grad is not None]
    for p in params if group["use_gc"] else ():
        if p.grad.layout != torch.strided and centralizes(group, p):
            raise RuntimeError(
                f"{type(optimizer).__name__} with use_gc=True does not support sparse gradients "
                f"(shape {list(p.grad.shape)}); set use_gc=False for its parameter group"
            )
    if group["use_gc"] or group.get("fused"):
        _lay_out(optimizer, group, params)


def _lay_out(optimizer: CentralizedOptimizer, group: _Group, params: list[Tensor]) -> None:
    # As GC and torch's fused kernels, which do not look, need gradients and state.
    fused, known = group.get("fused"), vars(optimizer).setdefault("_laid_out", {})
    memory = None
    if fused:
        parts = params if {*map(type, params)} <= {*OWN_TYPES} else list(map(local_tensor, params))
        strides = [p.stride() for p in parts]
        memory = [p.data_ptr() for p in parts], strides, [p.shape for p in parts]
        # Loading lays a state out, and torch makes it so: only what has moved since can be wrong.
        if known.get(id(group)) != memory:
            check_dense(params)
            for p in params:
                lay_out_state(p, optimizer.state.get(p, {}).values())
        elif parts is params and [p.grad.stride() for p in params] == strides:
            return
    for p in params:
        lay_out_gradient(p, fused)
    known[id(group)] = memory  # now that none was refused


def update_around(optimizer: CentralizedOptimizer, groups: list[_Group]) -> None:
    """Steps groups by the optimizer's own ``update_without_gc``, with GC before or after it.

    Args:
        optimizer: of any class.
        groups: those of its parameter groups that are to be stepped.
    """
    after: list[Tensor] = []
    owners: Counter[int] = Counter()
    if any(group["use_gc"] and group.get("gc_loc", True) for group in groups):
        every = {p for group in optimizer.param_groups for p in group["params"]}
        owners.update(id(p.grad) for p in every)
    for group in groups:
        params = [p for p in group["params"] if p.grad is not None] if group["use_gc"] else []
        # torch lets a group hold a parameter twice.
        eligible = dict.fromkeys(p for p in params if centralizes(group, p))
        if group.get("gc_loc", True):
            _centralize_gradients(optimizer, group, eligible, owners)
        else:
            after += eligible
    with _in_float32(optimizer, groups, [p for p in after if p.dtype in HALF]) as stand_in:
        weights = [local_rows(stand_in.get(p, p)) for p in after]
        means = list(map(row_means, weights))
        optimizer.update_without_gc(groups)
        for weight, mean in zip(weights, means, strict=True):
            shift_rows_(weight, row_means(weight).sub_(mean))


def _centralize_gradients(
    optimizer: CentralizedOptimizer, group: _Group, params: Iterable[Tensor], owners: Counter[int]
) -> None:
    """Shifts the rows of the gradients so that the update's ``g + wd·p`` is centralized."""
    decoupled = group.get("decoupled_weight_decay", optimizer.decoupled_weight_decay)
    wd = 0 if decoupled else group.get("weight_decay", 0)
    if group.get("maximize"):
        wd = -wd  # the update negates the gradient: μ(−g + wd·p) = −μ(g − wd·p)
    # GradScaler's scale is there where the fused kernel is to unscale the gradient itself.
    scale = getattr(optimizer, "grad_scale", None)
    for p in params:
        if owners[id(p.grad)] > 1:  # which is shifted for this parameter alone
            p.grad = p.grad.clone()
        g = local_rows(p.grad)
        mean = row_means(g)
        if wd:
            decay = row_means(local_rows(p)).mul_(wd)
            mean.add_(decay if scale is None else decay.mul_(scale.to(decay.device)))
        shift_rows_(g, mean)


@contextmanager
def _in_float32(
    optimizer: CentralizedOptimizer, groups: list[_Group], params: list[Tensor]
) -> Iterator[dict[Tensor, Tensor]]:
    """Float32 stand-ins for half-precision weights whose update is to be centralized.

    Such a weight is rounded when the update reaches it, and the shift that puts its row means
    back is lost in the next rounding. So the update is computed in float32, centralized there,
    and rounded once. For the time of a step this takes as much memory again as the weights, their
    gradients and moments in float32.
    """
    stand_in = {p: Parameter(p.float(), p.requires_grad) for p in params}
    state, own = optimizer.state, [group["params"] for group in groups]

    def convert(tensors: dict[str, Any], like: Tensor, dtype: torch.dtype) -> None:
        for x in tensors.values():
            if isinstance(x, Tensor) and x.shape == like.shape and x.is_floating_point():
                x.data = x.data.to(dtype)

    for p, q in stand_in.items():
        q.grad = p.grad.float()
        if p in state:
            state[q] = state.pop(p)
            convert(state[q], q, q.dtype)
    for group in groups if stand_in else ():
        group["params"] = [stand_in.get(p, p) for p in group["params"]]
    try:
        yield stand_in
    finally:
        for group, params in zip(groups, own, strict=True):
            group["params"] = params
        for p, q in stand_in.items():
            p.copy_(q)
            if q in state:
                state[p] = state.pop(q)
                convert(state[p], p, p.dtype)
