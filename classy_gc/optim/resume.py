"""Resuming: which options come from the checkpoint or the config, and which state fits."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from classy_vision.optim import ClassyOptimizer
from classy_vision.optim.rmsprop_tf import RMSpropTFOptimizer
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn

from classy_gc import core
from classy_gc.optim.stock import GC_KEYS, group_options

_SPEED = ("fused", "foreach")

# Options that do not distinguish algorithms: other versions of torch lack some of them, and the
# optimizers of this package have more.
_INDISTINCT = {
    *("params", "param_names", "capturable", "differentiable", "maximize", "initial_lr"),
    *(*GC_KEYS, *_SPEED, "decoupled_weight_decay"),
    *("degenerated_to_sgd", "initial_square_avg", "lr_in_momentum"),
}
_LARC = {"trust_coefficient", "clip", "eps"}
# Options that only some optimizers of a kind have in their groups; the others would refuse them.
_OPTIONAL = {*_INDISTINCT, *_LARC, "momentum"}


def _telling(group: Mapping[str, Any]) -> frozenset[str]:
    """The options of a group that distinguish algorithms."""
    names = frozenset(group) - _INDISTINCT
    if "trust_coefficient" in names:  # LARC has SGD's state, which has no eps
        names -= _LARC
    # Beside betas, momentum is only the schedule of the first.
    return names - {"momentum"} if "betas" in names else names


def _tensors(state: Mapping[Any, Any]) -> Iterator[tuple[Any, str, torch.Tensor]]:
    """Yields the parameter, name and tensor of each tensor in a state."""
    for parameter, own in state.items():
        if isinstance(own, Mapping):  # some classes also keep a common counter
            for name, x in own.items():
                if torch.is_tensor(x) and name != "step":  # older versions keep it as a number
                    yield parameter, name, x


def _names(state: Mapping[Any, Any]) -> set[str]:
    return {name for _, name, _ in _tensors(state)}


def first_steps(
    optimizer: ClassyOptimizer,
    options: Mapping[str, Any] | None = None,
    which: slice = slice(None),
) -> torch.optim.Optimizer:
    """Returns a torch optimizer like that of ``optimizer`` after its first steps on small weights.

    Its state shows the names and shapes of the tensors that the optimizer keeps.

    Args:
        optimizer: not changed, nor is torch's random state.
        options: of the only group, if they differ (default: None).
        which: of the small weights, which are always the same (default: all).
    """
    while hasattr(optimizer, "base_optimizer"):  # gc and zero have no state themselves
        optimizer = optimizer.base_optimizer
    probe = copy.copy(optimizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shapes = ((7,), (5, 7), (3, 1), (4, 2, 3), (4, 3, 2, 2))
        values, *grads = ([torch.rand(shape) for shape in shapes][which] for _ in range(4))
        weights = [nn.Parameter(value) for value in values]
        probe.prepare([{"params": weights}])
        probe.optimizer.param_groups[0].update(options or {})
        for step_grads in grads:
            for weight, grad in zip(weights, step_grads, strict=True):
                weight.grad = grad
            probe.optimizer.step()
    return probe.optimizer


def classes_of(module: ModuleType) -> dict[str, type[torch.optim.Optimizer]]:
    """The optimizer classes of a module by name, without the base of all.

    Example:
        >>> list(classes_of(torch.optim))[:3]
        ['ASGD', 'Adadelta', 'Adafactor']
    """
    base = torch.optim.Optimizer
    classes = dict(inspect.getmembers(module, inspect.isclass))
    return {name: c for name, c in classes.items() if issubclass(c, base) and c is not base}


@functools.cache
def _known_kinds() -> dict[str, tuple[set[str], frozenset[str]]]:
    """For each torch class, the tensors of its state and the options that distinguish it."""
    kinds = {}
    for name, cls in classes_of(torch.optim).items():
        weight = nn.Parameter(torch.ones(2, 2))
        weight.grad = torch.ones(2, 2)
        optimizer = cls([weight], lr=0.1)
        if name not in ("LBFGS", "SparseAdam"):  # they need a closure and sparse gradients
            optimizer.step()
        kinds[name] = (_names(optimizer.state), _telling(optimizer.param_groups[0]))
    return kinds


def _kinds_of_checkpoint(group: Mapping[str, Any], names: set[str]) -> set[str]:
    """The algorithms of torch or this package that a state may belong to."""
    found = {
        kind
        for kind, (own, options) in _known_kinds().items()
        if options == _telling(group) and (own <= names or not names)
    }
    if "RMSprop" in found and ("lr_in_momentum" in group or "maximize" not in group):
        return {"RMSpropTF"}
    decoupled = group.get("decoupled_weight_decay")  # older versions of torch lack it
    if "AdamW" in found and decoupled is not None:
        return {"AdamW" if decoupled else "Adam"}
    return found


def _kind_of_class(optimizer: torch.optim.Optimizer) -> str | None:
    """The algorithm of the class; None if it is neither torch's nor this package's."""
    for cls in type(optimizer).__mro__:
        if cls in (core.RMSpropTF, RMSpropTFOptimizer):
            return "RMSpropTF"
        if cls.__module__.startswith("torch.optim.") and cls is not torch.optim.Optimizer:
            decoupled = optimizer.param_groups[0].get("decoupled_weight_decay")
            return "AdamW" if cls is torch.optim.Adam and decoupled else cls.__name__
    return None


def _malformed(saved: Any) -> str | None:
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    lists = isinstance(groups, list) and isinstance(saved.get("state"), Mapping)
    if lists and all(isinstance(group, Mapping) and "params" in group for group in groups):
        return None
    return "the optimizer's part of the checkpoint is not the state of an optimizer"


def _forbidden_value(saved: Mapping[str, Any], optimizer: ClassyOptimizer) -> str | None:
    rules = group_options(optimizer)[1]
    for name, value in ((k, v) for group in saved["param_groups"] for k, v in group.items()):
        if name in rules and not torch.is_tensor(value) and not rules[name].accepts(value):
            return f"{name} of the checkpoint must be {rules[name].allowed}, not {value!r}"
    return None


def _other_kind(
    saved: Mapping[str, Any], optimizer: ClassyOptimizer, torch_optimizer: torch.optim.Optimizer
) -> str | None:
    """Why a state belongs to another algorithm or model; None if it fits."""
    if not saved["param_groups"]:
        return None
    was, names = saved["param_groups"][0], _names(saved["state"])
    theirs, own = _telling(was), _telling(torch_optimizer.param_groups[0])
    kind, kinds = _kind_of_class(torch_optimizer), _kinds_of_checkpoint(was, names)
    rules = group_options(optimizer)[1]
    probe = first_steps(optimizer, {k: v for k, v in was.items() if k in rules})
    fits = kind in kinds
    if not kind or not kinds:  # some classes add tensors and options during training
        same = names == _names(probe.state) or (own == theirs and _names(probe.state) <= names)
        fits = own <= theirs and (same or not names)
    if fits:
        return _other_shape(saved, optimizer, probe)
    whose = " or ".join(sorted(kinds)) or (
        f"one with the options {', '.join(sorted(theirs))} and the tensors "
        f"{', '.join(sorted(names)) or '(none)'}"
    )
    class_name = type(torch_optimizer).__name__.removeprefix("Centralized")
    return f"the state of the optimizer is that of {whose}, not of {kind or class_name}"


def _other_shape(
    saved: Mapping[str, Any], optimizer: ClassyOptimizer, probe: torch.optim.Optimizer
) -> str | None:
    tensors = list(_tensors(probe.state))
    as_weight = {(name, p.ndim) for p, name, _ in tensors}
    as_weight -= {(name, p.ndim) for p, name, x in tensors if x.shape != p.shape}
    params = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for i, name, x in _tensors(saved["state"]):
        if i in params and (name, params[i].ndim) in as_weight and x.shape != params[i].shape:
            return (
                f"{name} of parameter {i} has the shape {list(x.shape)}, and the parameter "
                f"{list(params[i].shape)}: it is the state of another model, or of parameters in "
                "another order"
            )
    return None


def resumed_state(
    state: dict[str, Any],
    optimizer: ClassyOptimizer,
    torch_optimizer: torch.optim.Optimizer,
    label: str,
) -> dict[str, Any]:
    """The state that an optimizer should load, with the options that it should continue with.

    The state may come from another optimizer of the same kind. Group options that only the other
    has are left out, and those that only this one has are as configured. GC options, speed switches
    and options set by a group are as configured; everything else comes from the checkpoint, as in
    the stock optimizers. One warning says where that makes a difference.

    Args:
        state: from ``get_classy_state``; not changed.
        optimizer: the one that resumes, with its groups and schedules.
        torch_optimizer: the one that makes the steps.
        label: names the optimizer in messages.

    Raises:
        ValueError: the state belongs to another kind of optimizer or another model, or an option
            has a value that is not allowed.
    """
    saved = state["optim"]
    reason = _malformed(saved) or _forbidden_value(saved, optimizer)
    reason = reason or _other_kind(saved, optimizer, torch_optimizer)
    if reason:
        raise ValueError(f"{label} cannot resume: {reason}")
    options = group_options(optimizer)[1]
    schedules = optimizer._param_group_schedulers or [{} for _ in optimizer.param_groups]
    ours: dict[str, None] = {}  # each difference once
    theirs: dict[str, None] = {}
    groups = [
        _resumed_group(current, schedule, was, options, ours, theirs)
        for current, schedule, was in zip(
            optimizer.param_groups, schedules, saved["param_groups"], strict=False
        )
    ]
    groups += saved["param_groups"][len(groups) :]
    wins = {"config wins over the checkpoint": ours, "checkpoint wins over the config": theirs}
    parts = [f"the {who}: {', '.join(texts)}" for who, texts in wins.items() if texts]
    if parts:
        logging.warning(f"{label}: {'; '.join(parts)}")
    return {**state, "optim": {**saved, "param_groups": groups}}


def _resumed_group(
    current: Mapping[str, Any],
    schedule: Mapping[str, Any],
    was: Mapping[str, Any],
    options: Mapping[str, Any],
    ours: dict[str, None],
    theirs: dict[str, None],
) -> dict[str, Any]:
    driven = {k for k, v in schedule.items() if not isinstance(v, ConstantParamScheduler)}
    group = {k: v for k, v in was.items() if k in current or k not in _OPTIONAL}
    for name, value in current.items():
        if name in ("params", "param_names", *_SPEED):
            group[name] = was["params"] if name == "params" else value
            continue
        old = was.get(name, value)
        if (name in GC_KEYS or name in schedule) and name not in driven:
            # Classy Vision sets the constants of groups at the first step, like schedules.
            group[name] = value if name in GC_KEYS else old
            if bool(old) != bool(value) if name in GC_KEYS else not _equal(old, value):
                ours[f"{name} is {value} (was {old})"] = None
            continue
        group.setdefault(name, value)
        if name == "betas" and "momentum" in schedule:
            old, value = old[1:], value[1:]
        if name in options and name not in driven and not _equal(old, value):
            theirs[f"{name} stays {old} (config: {value})"] = None
    if was.get("use_gc") and "use_gc" not in current:  # a stock optimizer
        ours["use_gc is False (was True)"] = None
    return group


def _equal(x: Any, y: Any) -> bool:
    return bool(
        (tuple(x) if isinstance(x, list) else x) == (tuple(y) if isinstance(y, list) else y)
    )
