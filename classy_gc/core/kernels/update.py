"""What a kernel is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Update(NamedTuple):
    """The step of a parameter group, beyond what every optimizer has.

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
    numbers: dict[str, float]
    new: Sequence[bool] = ()
