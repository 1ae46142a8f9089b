"""Resuming: which options come from the checkpoint or the config, and which state fits."""

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from classy_vision.optim import ClassyOptimizer
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn

from classy_gc.optim.stock import GC_KEYS, SPEED_KEYS, group_options
from classy_gc.options import Rule

# Options that do not distinguish algorithms: other versions of torch lack some of them, and the
# optimizers of this package have more.
_INDISTINCT = {"params", "param_names", "capturable", "differentiable", "maximize", "initial_lr"}
_INDISTINCT |= {"decoupled_weight_decay", "degenerated_to_sgd", "initial_square_avg"}
_INDISTINCT |= {"lr_in_momentum", *GC_KEYS, *SPEED_KEYS}
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
    tensors = list(_tensors({i: x for i, x in saved["state"].items() if i in params}))
    names, dims = {name for _, name, _ in tensors}, {params[i].ndim for i, _, _ in tensors}
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
    for i, name, x in tensors:
        shape = params[i].shape
        if (name, len(shape)) in as_weight and x.shape != shape:
            return (
                f"{name} of parameter {i} has the shape {[*x.shape]}, and the parameter "
                f"{[*shape]}: it is of another model, or of parameters in another order"
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
    reason = _malformed(saved) or _forbidden_value(saved, rules) or _misfit(saved, optimizer, rules)
    if reason:
        raise ValueError(f"{label} cannot resume: {reason}")
    groups, differences = [], []
    ours, theirs = optimizer.param_groups, saved["param_groups"]
    schedules = optimizer._param_group_schedulers or [{}] * len(ours)
    for current, schedule, was in zip(ours, schedules, theirs, strict=False):
        configured = {k: current[k] for k in ("param_names", *SPEED_KEYS, *GC_KEYS) if k in current}
        resumed = {k: v for k, v in was.items() if k in current or k not in _OPTIONAL}
        groups.append({**current, **resumed, **configured})
        differences += _differences(current, was, schedule, rules)
    groups += theirs[len(groups) :]
    parts = []
    for side, other in (("config", "checkpoint"), ("checkpoint", "config")):
        texts = dict.fromkeys(text for decides, text in differences if decides == side)
        if texts:
            parts.append(f"the {side} wins over the {other}: {', '.join(texts)}")
    if parts:
        logging.warning(f"{label}: {'; '.join(parts)}")
    return {**state, "optim": {**saved, "param_groups": groups}}


def _differences(
    current: dict[str, Any], was: dict[str, Any], schedule: dict[str, Any], rules: dict[str, Rule]
) -> Iterator[tuple[str, str]]:
    """Yields where config and checkpoint differ in a group: the side that decides, and how."""
    driven = {k for k, v in schedule.items() if not isinstance(v, ConstantParamScheduler)}
    for name, value in current.items():
        if name in driven.union(SPEED_KEYS) or name not in rules:
            continue
        new, old = (tuple(v) if isinstance(v, list) else v for v in (value, was.get(name, value)))
        if name == "betas" and "momentum" in schedule:
            new, old = new[1:], old[1:]
        if new == old:
            continue
        if name in GC_KEYS or name in schedule:  # Classy Vision sets constants at the first step
            yield "config", f"{name} is {new} (was {old})"
        else:
            yield "checkpoint", f"{name} stays {old} (config: {new})"
    if was.get("use_gc") and "use_gc" not in current:  # a stock optimizer
        yield "config", "use_gc is False (was True)"
