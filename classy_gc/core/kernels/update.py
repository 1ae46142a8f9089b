"""What the step of a parameter group is, beyond what every optimizer has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Update(NamedTuple):
    """The step of the parameters of one group.

    Args:
        family: ``"sgd"``, ``"adam"`` or ``"rmsprop"``.
        params: those that have a gradient.
        state: up to three lists of tensors that go with the parameters, or are empty.
        steps: step counts, which the kernel advances; may be empty.
        flags: those of the family that are on.
        numbers: options of the family by the names that ``rows.c`` has for them.
        new: whether the momentum of a parameter starts with this step; may be empty.
    """

    family: str
    params: list[Tensor]
    state: Sequence[list[Tensor]]
    steps: list[Tensor]
    flags: set[str]
    numbers: dict[str, Any]
    new: Sequence[bool] = ()


class KernelOptimizer(Protocol):
    """What kernels need to know of an optimizer."""

    param_groups: list[dict[str, Any]]
    kernel_without_gc: bool
    decoupled_weight_decay: bool | None

    def kernel_update(self, group: dict[str, Any], params: list[Tensor]) -> Update:
        """The update of a group; None in place of the method where no kernel knows the class."""


def state_of(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], params: list[Tensor], **initial: float
) -> list[list[Tensor]]:
    """The state of parameters by the names in ``initial``, a list each, made where missing.

    Unlike torch's it may be made at any step: a schedule may turn momentum on later.

    Args:
        optimizer: with the state.
        group: which the parameters are of.
        params: those that have a gradient.
        **initial: name: what a missing tensor of the parameter's shape is filled with; ``step`` is
            a scalar.
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
