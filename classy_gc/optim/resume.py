"""Resuming: which options come from the checkpoint or the config, and which state fits."""

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from classy_vision.optim import ClassyOptimizer
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn

from classy_gc.optim.stock import GC_KEYS, group_options
from classy_gc.options import Rule

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


def _kind(group: Mapping[str, Any]) -> set[str]:
    """What tells algorithms apart in a group: its options, and a word where they are the same."""
    kind = set(group) - _INDISTINCT
    if "trust_coefficient" in kind:  # LARC has SGD's state, which has no eps
        kind -= _LARC
    if "betas" in kind:
        kind -= {"momentum"}  # which is only the schedule of the first
    if "amsgrad" in kind and group.get("decoupled_weight_decay"):  # AdamW
        kind |= {"decoupled decay"}
    if "centered" in kind and ("lr_in_momentum" in group or "maximize" not in group):
        kind |= {"TensorFlow's eps"}  # RMSpropTF, whose stock class has no maximize
    return kind


def _tensors(state: Mapping[Any, Any]) -> Iterator[tuple[Any, str, torch.Tensor]]:
    """Yields the parameter, name and tensor of each tensor in a state."""
    for parameter, own in state.items():
        if isinstance(own, Mapping):  # some classes also keep a common counter
            for name, x in own.items():
                if torch.is_tensor(x) and name != "step":  # older versions keep it as a number
                    yield parameter, name, x


def first_steps(
    optimizer: ClassyOptimizer, options: Mapping[str, Any] | None = None, which: slice = slice(None)
) -> torch.optim.Optimizer:
    """Returns a torch optimizer like that of ``optimizer`` after its first steps on small weights.

    Its state shows the names and shapes of the tensors that the optimizer keeps. Torch's random
    state changes only if the optimizer draws random numbers.

    Args:
        optimizer: not changed.
        options: of the only group, if they differ (default: None).
        which: of the small weights, which are always the same (default: all).
    """
    while hasattr(optimizer, "base_optimizer"):  # gc and zero have no state themselves
        optimizer = optimizer.base_optimizer
    probe = copy.copy(optimizer)
    generator = torch.Generator().manual_seed(0)
    shapes = ((7,), (5, 7), (3, 1), (4, 2, 3), (4, 3, 2, 2))
    values, *grads = (
        [torch.rand(shape, generator=generator, device="cpu") for shape in shapes][which]
        for _ in range(4)
    )
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


def _malformed(saved: Any) -> str | None:
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    lists = isinstance(groups, list) and isinstance(saved.get("state"), Mapping)
    if lists and all(isinstance(group, Mapping) and "params" in group for group in groups):
        return None
    return "the optimizer's part of the checkpoint is not the state of an optimizer"


def _forbidden_value(saved: Mapping[str, Any], rules: Mapping[str, Rule]) -> str | None:
    for name, value in ((k, v) for group in saved["param_groups"] for k, v in group.items()):
        if name in rules and not torch.is_tensor(value) and not rules[name].accepts(value):
            return f"{name} of the checkpoint must be {rules[name].allowed}, not {value!r}"
    return None


@torch.random.fork_rng(devices=[])
def _misfit(
    saved: Mapping[str, Any], optimizer: ClassyOptimizer, rules: Mapping[str, Rule]
) -> str | None:
    """Why a state belongs to another algorithm or model; None if it fits."""
    if not saved["param_groups"]:
        return None
    was = saved["param_groups"][0]
    options = rules.keys() - _INDISTINCT
    probe = first_steps(optimizer, {k: v for k, v in was.items() if k in options})
    if "decoupled_weight_decay" in probe.defaults:  # older versions of torch do not save it
        was = {"decoupled_weight_decay": probe.defaults["decoupled_weight_decay"], **was}
    params = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    tensors = list(_tensors({params[i]: x for i, x in saved["state"].items() if i in params}))
    names, dims = {name for _, name, _ in tensors}, {p.ndim for p, _, _ in tensors}
    own = [(p, name, x) for p, name, x in _tensors(probe.state) if p.ndim in dims]
    own_names = {name for _, name, _ in own}
    # A class may add tensors and options as it trains; a schedule may just have set a momentum.
    kinds = [_kind(probe.defaults), _kind(probe.param_groups[0])]
    if _kind(was) not in kinds or not own_names - {"momentum_buffer"} <= names:
        return (
            f"the state of the optimizer is that of another: it has {_listed(_kind(was), names)}, "
            f"and {type(probe).__name__.removeprefix('Centralized')} has "
            f"{_listed(kinds[0], own_names)}"
        )
    as_weight = {(name, p.ndim) for p, name, _ in own}
    as_weight -= {(name, p.ndim) for p, name, x in own if x.shape != p.shape}
    for p, name, x in tensors:
        if (name, p.ndim) in as_weight and x.shape != p.shape:
            i = next(i for i, other in params.items() if other is p)
            return (
                f"{name} of parameter {i} has the shape {list(x.shape)}, and the parameter "
                f"{list(p.shape)}: it is the state of another model, or of parameters in "
                "another order"
            )
    return None


def _listed(kind: set[str], names: set[str]) -> str:
    return f"{', '.join(sorted(kind))} and the tensors {', '.join(sorted(names)) or '(none)'}"


def resumed_state(state: dict[str, Any], optimizer: ClassyOptimizer, label: str) -> dict[str, Any]:
    """The state that an optimizer should load, with the options that it should continue with.

    The state may come from another optimizer of the same kind. Group options that only the other
    has are left out, and those that only this one has are as configured. GC options, speed switches
    and options set by a group are as configured; everything else comes from the checkpoint, as in
    the stock optimizers. One warning says where that makes a difference.

    Args:
        state: from ``get_classy_state``; not changed.
        optimizer: the one that resumes, with its groups and schedules.
        label: names the optimizer in messages.

    Raises:
        ValueError: the state belongs to another kind of optimizer or another model, or an option
            has a value that is not allowed.
    """
    saved, rules = state["optim"], group_options(optimizer)[1]
    reason = _malformed(saved) or _forbidden_value(saved, rules)
    reason = reason or _misfit(saved, optimizer, rules)
    if reason:
        raise ValueError(f"{label} cannot resume: {reason}")
    groups, differences = [], {"config": {}, "checkpoint": {}}
    schedules = optimizer._param_group_schedulers or [{} for _ in optimizer.param_groups]
    for current, schedule, was in zip(
        optimizer.param_groups, schedules, saved["param_groups"], strict=False
    ):
        groups.append(_resumed_group(current, schedule, was, rules, differences))
    groups += saved["param_groups"][len(groups) :]
    parts = [
        f"the {side} wins over the {other}: {', '.join(differences[side])}"
        for side, other in (("config", "checkpoint"), ("checkpoint", "config"))
        if differences[side]
    ]
    if parts:
        logging.warning(f"{label}: {'; '.join(parts)}")
    return {**state, "optim": {**saved, "param_groups": groups}}


def _resumed_group(
    current: Mapping[str, Any],
    schedule: Mapping[str, Any],
    was: Mapping[str, Any],
    rules: Mapping[str, Rule],
    differences: Mapping[str, dict[str, None]],
) -> dict[str, Any]:
    """The options to continue with; adds to ``differences`` what each side decides, once."""
    driven = {k for k, v in schedule.items() if not isinstance(v, ConstantParamScheduler)}
    configured = {k: current[k] for k in ("param_names", *_SPEED, *GC_KEYS) if k in current}
    theirs = {k: v for k, v in was.items() if k in current or k not in _OPTIONAL}
    group = {**current, **theirs, **configured}
    for name, value in current.items():
        if name in driven or name in _SPEED or name not in rules:
            continue
        old = was.get(name, value)
        if name == "betas" and "momentum" in schedule:
            old, value = old[1:], value[1:]
        if _equal(old, value):
            continue
        if name in GC_KEYS or name in schedule:  # Classy Vision sets constants at the first step
            differences["config"][f"{name} is {value} (was {old})"] = None
        else:
            differences["checkpoint"][f"{name} stays {old} (config: {value})"] = None
    if was.get("use_gc") and "use_gc" not in current:  # a stock optimizer
        differences["config"]["use_gc is False (was True)"] = None
    return group


def _equal(x: Any, y: Any) -> bool:
    return (tuple(x) if isinstance(x, list) else x) == (tuple(y) if isinstance(y, list) else y)
