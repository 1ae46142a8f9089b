"""Converts parameter groups to the forms that Classy Vision and torch take."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from classy_vision.optim import param_scheduler
from classy_vision.optim.param_scheduler import UpdateInterval
from fvcore.common.param_scheduler import ConstantParamScheduler, ParamScheduler

from classy_gc.options import Rule


def as_groups(param_groups: Any) -> list[dict[str, Any]]:
    """Parameter groups as dicts with lists of tensors, and ``param_names`` if they are named.

    Args:
        param_groups: tensors, ``(name, tensor)`` pairs as ``named_parameters()`` gives them, or
            a dict or dicts whose ``params`` are either.

    Raises:
        ValueError: there are no parameters.

    Example:
        >>> as_groups(torch.nn.Linear(2, 1).named_parameters())[0]["param_names"]
        ['weight', 'bias']
    """
    groups = [param_groups] if isinstance(param_groups, Mapping) else list(param_groups)
    if not groups:
        raise ValueError("optimizer got an empty parameter list")
    if not isinstance(groups[0], Mapping):
        groups = [{"params": groups}]
    return [_as_group(group) for group in groups]


def _as_group(group: Mapping[str, Any]) -> dict[str, Any]:
    params = group["params"]
    params = [params] if isinstance(params, torch.Tensor) else list(params)
    if params and all(isinstance(p, tuple) for p in params):
        names, params = map(list, zip(*params, strict=True))
        return {**group, "params": params, "param_names": names}
    return {**group, "params": params}


def as_schedulers(options: dict[str, Any], rules: dict[str, Rule], label: str) -> dict[str, Any]:
    """The options of a group as the ParamSchedulers that Classy Vision takes.

    Args:
        options: values, or ParamSchedulers, also fvcore's own, which are updated at every step.
        rules: of the options.
        label: names their owner in messages.

    Raises:
        ValueError: a schedule of an option that is read only once or is not a number, with those
            that can be scheduled.

    Example:
        >>> as_schedulers({"lr": 0.1, "betas": [0.9, 0.99]}, {}, "group")["betas"](where=0.5)
        (0.9, 0.99)
    """
    known = [name for name, rule in rules.items() if rule.schedulable]
    result = dict(options)
    for name, value in options.items():
        if name == "params":
            continue
        if not isinstance(value, ParamScheduler):
            as_in_torch = tuple(value) if name == "betas" else value
            result[name] = param_scheduler.ConstantParamScheduler(as_in_torch)
        elif name in rules and name not in known and not isinstance(value, ConstantParamScheduler):
            raise ValueError(f"{label}: {name} cannot be scheduled; these can: {', '.join(known)}")
        elif not hasattr(value, "update_interval"):
            result[name] = copy.copy(value)
            result[name].update_interval = UpdateInterval.STEP
    return result
