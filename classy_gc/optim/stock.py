"""What Classy Vision's own optimizers read, and what they would ignore."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer
from classy_vision.optim.zero import ZeRO
from torch import nn

from classy_gc.options import BETAS, BOOL, FRACTION, NON_NEGATIVE, NUMBER, SWITCH, Rule, check_known

_GC_KEYS = ("use_gc", "gc_conv_only", "gc_loc")

_RULES = {
    **dict.fromkeys(("lr", "weight_decay", "eps"), NON_NEGATIVE),
    **dict.fromkeys(("momentum", "alpha"), FRACTION),
    "betas": BETAS,
}


def is_stock(cls: type) -> bool:
    """Whether the class is Classy Vision's own, whose keys are known.

    Example:
        >>> is_stock(ZeRO)
        True
    """
    return cls.__module__.startswith("classy_vision.")


def base_config(config: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """The ``base_optimizer`` of an optimizer around another.

    Args:
        config: of the outer optimizer, whose schedules drive both.
        label: whose it is, for the message.

    Raises:
        ValueError: it is no config of a registered optimizer, or has schedules of its own.

    Example:
        >>> base_config({"name": "gc", "base_optimizer": {"name": "sgd"}}, "optimizer 'gc'")
        {'name': 'sgd'}
    """
    base = config.get("base_optimizer")
    if not isinstance(base, Mapping) or "name" not in base:
        raise ValueError(
            f"{label}: base_optimizer must be an optimizer config with a 'name', not {base!r}"
        )
    check_known([base["name"]], sorted(OPTIMIZER_REGISTRY), label, "base_optimizer")
    if "param_schedulers" in base:
        raise ValueError(f"{label}: param_schedulers belong beside base_optimizer, not in it")
    return base


def stock_group_options(optimizer: ClassyOptimizer) -> tuple[dict[str, Any], dict[str, Rule]]:
    """The options of a parameter group: their values, and what they accept.

    Only torch's optimizer tells, and it needs a parameter.

    Args:
        optimizer: around one of torch; stays as it is.

    Example:
        >>> values, rules = stock_group_options(OPTIMIZER_REGISTRY["sgd"](lr=0.5))
        >>> values["lr"], rules["lr"].allowed
        (0.5, 'a number >= 0')
    """
    probe = copy.copy(optimizer)
    probe.prepare([{"params": [nn.Parameter(torch.zeros(1))]}])
    values = {k: v for k, v in probe.param_groups[0].items() if k != "params"}
    return values, {name: _rule(name, value) for name, value in values.items()}


def _rule(name: str, value: Any) -> Rule:
    kind = SWITCH if value is None else BOOL if isinstance(value, bool) else NUMBER
    return _RULES.get(name, kind)


def check_no_gc_keys(config: Mapping[str, Any]) -> None:
    """Refuses options of gradient centralization where a stock optimizer would ignore them.

    Args:
        config: of an optimizer, whose ``name`` need not be known.

    Raises:
        ValueError: naming the key, its value, and the optimizer to use.

    Example:
        >>> check_no_gc_keys({"name": "sgd", "lr": 0.1, "use_gc": True})
        Traceback (most recent call last):
        ValueError: optimizer 'sgd' would ignore use_gc (True); the one with gradient \
centralization is 'sgd_gc'
    """
    name = config.get("name")
    cls = OPTIMIZER_REGISTRY.get(name)
    if cls is None or not is_stock(cls):
        return
    given = {key: config[key] for key in _GC_KEYS if key in config}
    schedules = config.get("param_schedulers")
    schedules = schedules if isinstance(schedules, Mapping) else {}
    scheduled = {f"param_schedulers.{k}": schedules[k] for k in _GC_KEYS if k in schedules}
    advice = f"the one with gradient centralization is '{name}_gc'"
    if cls is ZeRO:
        base = config.get("base_optimizer")
        if isinstance(base, Mapping):
            check_no_gc_keys({**base, **({"param_schedulers": schedules} if scheduled else {})})
        scheduled = {}
        advice = "it belongs in base_optimizer"
    elif f"{name}_gc" not in OPTIMIZER_REGISTRY:
        advice = f"put 'gc' around it: its base_optimizer is {name!r}"
    for key, value in {**given, **scheduled}.items():
        raise ValueError(f"optimizer {name!r} would ignore {key} ({value!r}); {advice}")
