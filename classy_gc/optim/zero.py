"""Classy Vision's ``zero`` around a GC optimizer, which then decides what is resumed.

``zero`` runs the schedules and loads the checkpoints itself, and never asks the optimizer that
it wraps, so the two methods in question are extended here.
"""

from __future__ import annotations

from typing import Any

from classy_vision.optim.classy_optimizer import ClassyOptimizer
from classy_vision.optim.zero import ZeRO

from classy_gc.optim.scheduled_gc import ScheduledGC


def _step(self: ZeRO, *args: Any, where: float | None = None, **kwargs: Any) -> None:
    if isinstance(self.base_optimizer, ScheduledGC):
        self.base_optimizer.catch_up(where, self)
    ClassyOptimizer.step(self, *args, where=where, **kwargs)


def _set_classy_state(self: ZeRO, state: dict[str, Any]) -> None:
    if isinstance(self.base_optimizer, ScheduledGC):
        state = self.base_optimizer.resumed(state, self)
    ClassyOptimizer.set_classy_state(self, state)


ZeRO.step = _step
ZeRO.set_classy_state = _set_classy_state
