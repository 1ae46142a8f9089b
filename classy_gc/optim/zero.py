"""Classy Vision's ``zero`` around a GC optimizer: what it is given, schedules and resumes.

``zero`` runs the schedules and loads the checkpoints itself and never asks the optimizer that it
wraps. So this module replaces four methods of Classy Vision's class ``ZeRO``: ``from_config``,
``set_param_groups``, ``step`` and ``set_classy_state``. Around any other optimizer they do what
they did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from classy_vision.optim.classy_optimizer import ClassyOptimizer
from classy_vision.optim.zero import ZeRO

from classy_gc.optim.groups import as_schedulers
from classy_gc.optim.resume import first_steps
from classy_gc.optim.scheduled_gc import ScheduledGC, log_baseline

_from_config = ZeRO.from_config.__func__


def _with_schedules(cls: type[ZeRO], config: Mapping[str, Any]) -> ZeRO:
    optimizer = _from_config(cls, config)
    base = optimizer.base_optimizer
    if isinstance(base, ScheduledGC):
        reason = _unfit_reason(base)
        if reason:
            raise ValueError(f"{base.label()} cannot be the base_optimizer of 'zero': it {reason}")
        if "param_schedulers" in config:
            base.keep_schedules(config, base.group_options()[1])
    return optimizer


def _unfit_reason(base: ScheduledGC) -> str | None:
    """Why each process cannot step and save its own share of the weights; None if it can."""
    together = first_steps(base)
    saved = together.state_dict()
    others = [key for key in saved["state"] if not isinstance(key, int)]
    others += saved.keys() - {"state", "param_groups"}
    if others:
        return f"keeps {others[0]!r} beside the state of its weights, which 'zero' does not save"
    for which in (slice(2), slice(2, None)):
        if _text(first_steps(base, which=which), slice(None)) != _text(together, which):
            return (
                "steps a weight by what all weights are, or by random numbers, and each process "
                "has only a share of the weights"
            )
    return None


def _text(optimizer: torch.optim.Optimizer, which: slice) -> str:
    """The options and some weights of the only group; unlike tensors, text compares NaN too."""
    group = dict(optimizer.param_groups[0])
    group.pop("lr", None)  # timm's Adafactor leaves that of the last weight there
    weights = [p.tolist() for p in group.pop("params")[which]]
    return f"{group} {weights}"


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
