"""What a kernel is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Update(NamedTuple):
    """What a kernel is told of the step of a group, beyond what every optimizer has.

    Args:
        family: ``"sgd"``, ``"adam"`` or ``"rmsprop"``.
        params: those that have a gradient.
        grads: theirs.
        state: up to three lists of tensors that go with the parameters, or are empty.
        steps: step counts, which the kernel advances; may be empty.
        flags: of the family, those that are on.
        numbers: options of the family by the names that ``rows.c`` has for them.
        new: of each parameter, whether its momentum starts with this step; may be empty.
    """

    family: str
    params: list[Tensor]
    grads: list[Tensor]
    state: Sequence[list[Tensor]]
    steps: list[Tensor]
    flags: set[str]
    numbers: dict[str, float]
    new: Sequence[bool] = ()
