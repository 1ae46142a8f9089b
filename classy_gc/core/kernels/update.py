"""Describes the step of a parameter group for a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Update(NamedTuple):
    """The step of the parameters of one group.

    Args:
        family: ``"sgd"``, ``"adam"`` or ``"rmsprop"``.
        params: the parameters that have a gradient.
        state: up to three lists, each empty or with one tensor per parameter.
        steps: step counts, which the kernel advances; may be empty.
        flags: the flags of the family that are on.
        numbers: options of the family, by their names in ``rows.c``.
        new: whether the momentum of each parameter starts with this step; may be empty.
    """

    family: str
    params: list[Tensor]
    state: Sequence[list[Tensor]]
    steps: list[Tensor]
    flags: set[str]
    numbers: dict[str, Any]
    new: Sequence[bool] = ()


class AnyOptimizer(Protocol):
    """The part of an optimizer that kernels use, and GC when it wraps an update."""

    param_groups: list[dict[str, Any]]
    state: dict[Tensor, dict[str, Any]]
    kernel_without_gc: bool
    decoupled_weight_decay: bool | None

    def kernel_update(self, group: dict[str, Any], params: list[Tensor]) -> Update:
        """The update of a group; the method is None if no kernel knows the class."""

    def update_without_gc(self, groups: list[dict[str, Any]]) -> None:
        """Steps some of the groups."""


def state_of(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], params: list[Tensor], **initial: float
) -> list[list[Tensor]]:
    """The state of parameters, one list for each name in ``initial``; missing state is created.

    Unlike torch's, it may be created at any step: a schedule may turn momentum on later.

    Args:
        optimizer: the one with the state.
        group: the parameter group.
        params: the parameters that have a gradient.
        **initial: the value that fills a missing tensor of the parameter's shape, by name; ``step``
            is a scalar.
    """
    states = [optimizer.state[p] for p in params]
    for p, state in zip(params, states, strict=True):
        for name in initial:
            if state.get(name) is None:
                state[name] = _initial(name, initial[name], p, group)
    return [[state[name] for state in states] for name in initial]


def _initial(name: str, value: float, p: Tensor, group: Mapping[str, Any]) -> Tensor:
    if name != "step":
        return torch.full_like(p, value)
    fused = group.get("fused")
    default = torch.float32 if fused else torch.get_default_dtype()
    device = p.device if fused or group.get("capturable") else "cpu"
    return torch.tensor(value, dtype=torch.promote_types(default, torch.float32), device=device)
