"""Resuming: which options come from the checkpoint, which from the config, and which state fits."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from classy_vision.optim import ClassyOptimizer
from classy_vision.optim.rmsprop_tf import RMSpropTFOptimizer
from fvcore.common.param_scheduler import ConstantParamScheduler

from classy_gc import core

_GC = ("use_gc", "gc_conv_only", "gc_loc")
_SPEED = ("fused", "foreach")
_PARAMS = ("params", "param_names")

# What says nothing of the algorithm whose state a group belongs to: other versions of torch
# lack some of these, and the optimizers of this package have some more.
_TELLS_NOTHING = {
    *_PARAMS,
    *_GC,
    *_SPEED,
    *("capturable", "differentiable", "maximize", "initial_lr", "decoupled_weight_decay"),
    *("degenerated_to_sgd", "initial_square_avg", "lr_in_momentum"),
}
_LARC = ("trust_coefficient", "clip", "eps")
# What another optimizer of the kind may have in its groups, and one that lacks it would refuse.
_OF_OTHERS = {*_TELLS_NOTHING, *_LARC, "momentum"}


def _telling(group: Mapping[str, Any]) -> frozenset[str]:
    names = set(group) - _TELLS_NOTHING
    if "trust_coefficient" in names:  # SGD's state, which has no eps
        names -= {*_LARC}
    if "betas" in names:
        names -= {"momentum"}  # the schedule of the first beta
    return frozenset(names)


@functools.cache
def _kinds() -> dict[frozenset[str], set[str]]:
    """The classes of torch by their options; some have the same."""
    kinds: dict[frozenset[str], set[str]] = {}
    for name, cls in inspect.getmembers(torch.optim, inspect.isclass):
        if issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer:
            group = cls([torch.zeros(1, 1)], lr=0.1).param_groups[0]
            kinds.setdefault(_telling(group), set()).add(name)
    return kinds


def _kinds_of_checkpoint(saved: Mapping[str, Any]) -> set[str]:
    """The algorithms that the state may be of; none if it is of nobody's that torch ships."""
    if not saved["param_groups"]:
        return set()
    group = saved["param_groups"][0]
    found = set(_kinds().get(_telling(group), ()))
    if "RMSprop" in found and ("lr_in_momentum" in group or "maximize" not in group):
        return {"RMSpropTF"}
    decoupled = group.get("decoupled_weight_decay")  # older versions of torch do not say
    if "AdamW" in found and decoupled is not None:
        return {"AdamW" if decoupled else "Adam"}
    if "Adamax" in found and any(saved["state"].values()):
        inf = any("exp_inf" in state for state in saved["state"].values())
        return {"Adamax" if inf else "RAdam"}
    return found


def _kind_of_class(optimizer: torch.optim.Optimizer) -> str | None:
    """The algorithm of the class; None of one that is neither torch's nor this package's."""
    for cls in type(optimizer).__mro__:
        if cls in (core.RMSpropTF, RMSpropTFOptimizer):
            return "RMSpropTF"
        if cls.__module__.startswith("torch.optim.") and cls is not torch.optim.Optimizer:
            decoupled = optimizer.param_groups[0].get("decoupled_weight_decay")
            return "AdamW" if cls is torch.optim.Adam and decoupled else cls.__name__
    return None


def _check_kind(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, label: str) -> None:
    kind, kinds = _kind_of_class(optimizer), _kinds_of_checkpoint(saved)
    if not saved["param_groups"] or kind in kinds:
        return
    theirs, own = (_telling(g["param_groups"][0]) for g in (saved, vars(optimizer)))
    if not (kind and kinds) and (own <= theirs or not (kind or kinds)):
        return  # one's own, which may add to its groups what it likes
    whose = " or ".join(sorted(kinds)) or f"one with the options {', '.join(sorted(theirs))}"
    raise ValueError(
        f"{label} cannot resume: the state of the optimizer is that of {whose}, not of "
        f"{kind or type(optimizer).__name__}"
    )


def resumed_state(
    state: dict[str, Any],
    optimizer: ClassyOptimizer,
    torch_optimizer: torch.optim.Optimizer,
    label: str,
) -> dict[str, Any]:
    """The state that an optimizer is to load, with the options that it is to go on with.

    Of a state that was saved by another optimizer of its kind the group options that this one
    does not have are left out, and those that the other did not have are as configured. GC
    options, speed switches and what a group sets are as configured; everything else is the
    checkpoint's, as with the stock optimizers. One warning says where that makes a difference.

    Args:
        state: what ``get_classy_state`` returned; stays as it is.
        optimizer: whose groups and schedules these are.
        torch_optimizer: which makes the steps.
        label: of the optimizer, for messages.

    Raises:
        ValueError: the state is of another kind of optimizer.
    """
    saved = state["optim"]
    _check_kind(saved, torch_optimizer, label)
    schedules = optimizer._param_group_schedulers or [{} for _ in optimizer.param_groups]
    groups, wins = [], _Wins({}, {})
    for current, schedule, was in zip(
        optimizer.param_groups, schedules, saved["param_groups"], strict=False
    ):
        driven = {k for k, v in schedule.items() if not isinstance(v, ConstantParamScheduler)}
        groups.append(_resumed_group(current, schedule, driven, was, wins))
    groups += saved["param_groups"][len(groups) :]
    parts = [
        f"the {who} wins over the {other}: "
        + ", ".join(f"{name} {verb} {text}" for name, texts in found.items() for text in texts)
        for who, other, verb, found in (
            ("config", "checkpoint", "is", wins.config),
            ("checkpoint", "config", "stays", wins.checkpoint),
        )
        if found
    ]
    if parts:
        logging.warning(f"{label}: {'; '.join(parts)}")
    return {**state, "optim": {**saved, "param_groups": groups}}


class _Wins(NamedTuple):
    """Of each option that differs, what the config says, or the checkpoint: each text once."""

    config: dict[str, dict[str, None]]
    checkpoint: dict[str, dict[str, None]]


def _resumed_group(
    current: Mapping[str, Any],
    schedule: Mapping[str, Any],
    driven: set[str],
    was: Mapping[str, Any],
    wins: _Wins,
) -> dict[str, Any]:
    group = {k: v for k, v in was.items() if k in current or k not in _OF_OTHERS}
    for name, value in current.items():
        if name in _PARAMS or name in _SPEED:
            group[name] = was["params"] if name == "params" else value
            continue
        old = was.get(name, value)
        if (name in _GC or name in schedule) and name not in driven:
            group[name] = value
            if not (bool(old) == bool(value) if name in _GC else _equal(old, value)):
                wins.config.setdefault(name, {})[f"{value} (was {old})"] = None
            continue
        group.setdefault(name, value)
        if name == "betas" and "momentum" in schedule:
            old, value = old[1:], value[1:]
        if name not in driven and not _equal(old, value):
            wins.checkpoint.setdefault(name, {})[f"{old} (config: {value})"] = None
    if was.get("use_gc") and "use_gc" not in current:  # a stock optimizer
        wins.config.setdefault("use_gc", {})["False (was True)"] = None
    return group


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, (list, tuple)) and isinstance(y, (list, tuple)):
        return len(x) == len(y) and all(map(_equal, x, y))
    return bool(x == y)
