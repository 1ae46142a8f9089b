"""Classy Vision's ``zero`` around a GC optimizer: what it is given, schedules and resumes.

``zero`` runs the schedules and loads the checkpoints itself and never asks the optimizer that it
wraps. So this module replaces four methods of Classy Vision's class ``ZeRO``: ``from_config``,
``set_param_groups``, ``step`` and ``set_classy_state``. Around any other optimizer they do what
they did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classy_vision.optim.classy_optimizer import ClassyOptimizer
from classy_vision.optim.zero import ZeRO

from classy_gc.optim.groups import as_schedulers
from classy_gc.optim.scheduled_gc import ScheduledGC, log_baseline

_from_config = ZeRO.from_config.__func__


def _with_schedules(cls: type[ZeRO], config: Mapping[str, Any]) -> ZeRO:
    optimizer = _from_config(cls, config)
    base = optimizer.base_optimizer
    if isinstance(base, ScheduledGC) and "param_schedulers" in config:
        base.keep_schedules(config, base.group_options()[1])
    return optimizer


def _set_param_groups(self: ZeRO, param_groups: Any, **kwargs: Any) -> None:
    if not isinstance(self.base_optimizer, ScheduledGC):
        return ClassyOptimizer.set_param_groups(self, param_groups, **kwargs)
    groups = self.base_optimizer.scheduled_groups(param_groups, kwargs)
    for group in groups:
        group.pop("param_names", None)
    ClassyOptimizer.set_param_groups(self, list(map(as_schedulers, groups)))
    log_baseline(self.base_optimizer.label(), self)


def _step(self: ZeRO, *args: Any, where: float | None = None, **kwargs: Any) -> None:
    if isinstance(self.base_optimizer, ScheduledGC):
        self.base_optimizer.catch_up(where, self)
    ClassyOptimizer.step(self, *args, where=where, **kwargs)


def _set_classy_state(self: ZeRO, state: dict[str, Any]) -> None:
    if isinstance(self.base_optimizer, ScheduledGC):
        state = self.base_optimizer.resumed(state, self)
    ClassyOptimizer.set_classy_state(self, state)


ZeRO.from_config = classmethod(_with_schedules)
ZeRO.set_param_groups = _set_param_groups
ZeRO.step = _step
ZeRO.set_classy_state = _set_classy_state
