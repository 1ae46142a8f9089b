"""Resuming: which options come from the checkpoint, which from the config, and which state fits."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from classy_vision.optim import ClassyOptimizer
from classy_vision.optim.rmsprop_tf import RMSpropTFOptimizer
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn

from classy_gc import core
from classy_gc.optim.stock import group_options
from classy_gc.options import is_number

_GC = ("use_gc", "gc_conv_only", "gc_loc")
_SPEED = ("fused", "foreach")
_PARAMS = ("params", "param_names")

# Options that do not tell algorithms apart: other versions of torch lack some of them, and the
# optimizers of this package have some more.
_TELLS_NOTHING = {
    *(*_PARAMS, *_GC, *_SPEED, "capturable", "differentiable", "maximize", "initial_lr"),
    *("decoupled_weight_decay", "degenerated_to_sgd", "initial_square_avg", "lr_in_momentum"),
}
_LARC = ("trust_coefficient", "clip", "eps")
# What another optimizer of the kind may have in its groups, and one that lacks it would refuse.
_OF_OTHERS = {*_TELLS_NOTHING, *_LARC, "momentum"}


def _telling(group: Mapping[str, Any]) -> frozenset[str]:
    """The options of a group that tell whose it is."""
    names = set(group) - _TELLS_NOTHING
    if "trust_coefficient" in names:  # SGD's state, which has no eps
        names -= {*_LARC}
    if "betas" in names:
        names -= {"momentum"}  # the schedule of the first beta
    return frozenset(names)


def _tensors(state: Mapping[Any, Mapping[str, Any]]) -> set[str]:
    """The names of the tensors in a state, but for the step count, which older ones lack."""
    return {k for own in state.values() for k, x in own.items() if torch.is_tensor(x)} - {"step"}


def first_steps(
    optimizer: ClassyOptimizer, options: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """A torch optimizer like that of ``optimizer``, after its first steps on small weights.

    Its state shows which tensors the optimizer keeps, under which names and with which shapes.

    Args:
        optimizer: stays as it is, and so do torch's random numbers.
        options: of the only group, where they differ (default: None).
    """
    while hasattr(optimizer, "base_optimizer"):  # gc and zero keep no state of their own
        optimizer = optimizer.base_optimizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.rand(shape)) for shape in ((7,), (5, 7), (4, 2, 3, 3))]
        probe = copy.copy(optimizer)
        probe.prepare([{"params": weights}])
        probe.optimizer.param_groups[0].update(options or {})
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.rand_like(weight)
            probe.optimizer.step()
    return probe.optimizer


@functools.cache
def _known_kinds() -> dict[str, tuple[set[str], frozenset[str]]]:
    """Torch's classes, with the tensors of their states and the options that tell them apart."""
    kinds = {}
    for name, cls in inspect.getmembers(torch.optim, inspect.isclass):
        if issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer:
            weight = nn.Parameter(torch.ones(2, 2))
            weight.grad = torch.ones(2, 2)
            optimizer = cls([weight], lr=0.1)
            if name not in ("LBFGS", "SparseAdam"):  # which need a closure, and sparse gradients
                optimizer.step()
            kinds[name] = (_tensors(optimizer.state), _telling(optimizer.param_groups[0]))
    return kinds


def _kinds_of_checkpoint(saved: Mapping[str, Any]) -> set[str]:
    """The algorithms of torch, or of this package, that a state may be of."""
    group, tensors = saved["param_groups"][0], _tensors(saved["state"])
    found = {
        name
        for name, (own, options) in _known_kinds().items()
        if options == _telling(group) and (own <= tensors or not tensors)
    }
    if "RMSprop" in found and ("lr_in_momentum" in group or "maximize" not in group):
        return {"RMSpropTF"}
    decoupled = group.get("decoupled_weight_decay")  # older versions of torch do not say
    if "AdamW" in found and decoupled is not None:
        return {"AdamW" if decoupled else "Adam"}
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


def _check_kind(
    saved: Mapping[str, Any],
    optimizer: ClassyOptimizer,
    torch_optimizer: torch.optim.Optimizer,
    label: str,
) -> None:
    """Refuses the state of another algorithm, or of another model."""
    kind, kinds = _kind_of_class(torch_optimizer), _kinds_of_checkpoint(saved)
    was, tensors = saved["param_groups"][0], _tensors(saved["state"])
    theirs, own = _telling(was), _telling(torch_optimizer.param_groups[0])
    current = torch_optimizer.param_groups[0].keys() - {*_PARAMS, *_SPEED}
    probe = first_steps(optimizer, {k: v for k, v in was.items() if k in current})
    own_tensors = _tensors(probe.state)
    if kind and kinds:
        fits = kind in kinds
    else:  # some classes add tensors, and options, as training goes on
        same = tensors == own_tensors or (own == theirs and own_tensors <= tensors)
        fits = own <= theirs and (same or not tensors)
    if not fits:
        whose = " or ".join(sorted(kinds)) or (
            f"one with the options {', '.join(sorted(theirs))} and the tensors "
            f"{', '.join(sorted(tensors)) or 'of none'}"
        )
        raise ValueError(
            f"{label} cannot resume: the state of the optimizer is that of {whose}, not of "
            f"{kind or type(torch_optimizer).__name__}"
        )
    _check_shapes(saved, torch_optimizer, probe, label)


def _check_shapes(
    saved: Mapping[str, Any],
    optimizer: ClassyOptimizer,
    probe: torch.optim.Optimizer,
    label: str,
) -> None:
    """Refuses tensors with another shape than their parameter's, where that is what they have."""
    like_weight = {
        (name, p.ndim)
        for p, state in probe.state.items()
        for name, x in state.items()
        if torch.is_tensor(x) and x.shape == p.shape
    }
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i, p in enumerate(params):
        for name, x in saved["state"].get(i, {}).items():
            if (name, p.ndim) in like_weight and x.shape != p.shape:
                raise ValueError(
                    f"{label} cannot resume: {name} of parameter {i} has the shape "
                    f"{list(x.shape)}, and the parameter {list(p.shape)}: it is the state of "
                    "another model, or of parameters in another order"
                )


def _check_values(saved: Mapping[str, Any], optimizer: ClassyOptimizer, label: str) -> None:
    """Refuses options of groups that no step could use."""
    rules = group_options(optimizer)[1]
    for group in saved["param_groups"]:
        for name, value in group.items():
            rule = rules.get(name)
            if torch.is_tensor(value) or rule is None or name in _SPEED:
                continue
            # A scheduled GC option is a number.
            if not rule.accepts(bool(value) if name in _GC and is_number(value) else value):
                raise ValueError(
                    f"{label} cannot resume: {name} of the checkpoint must be {rule.allowed}, not "
                    f"{value!r}"
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
        ValueError: the state is of another kind of optimizer or of another model, or an option
            has a value that is not allowed.
    """
    saved = state["optim"]
    if saved["param_groups"]:
        _check_values(saved, optimizer, label)
        _check_kind(saved, optimizer, torch_optimizer, label)
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
            # The constants of groups are set with the first step, as Classy Vision sets schedules.
            group[name] = value if name in _GC else old
            if not (bool(old) == bool(value) if name in _GC else _equal(old, value)):
                wins.config.setdefault(name, {})[f"{value} (was {old})"] = None
            continue
        group.setdefault(name, value)
        if name in schedule and name not in driven:  # as the schedules, from the first step on
            if not _equal(old, value):
                wins.config.setdefault(name, {})[f"{value} (was {old})"] = None
            continue
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
