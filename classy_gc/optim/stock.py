"""Checks that Classy Vision's own optimizers read every key of their config.

Here the config of any optimizer is checked as a whole, before anything is built.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer
from classy_vision.optim.zero import ZeRO
from torch import nn

from classy_gc.optim.param_scheduler.checks import check_schedulers
from classy_gc.options import Rule, check_known, registered_name, rule_of

#: keys in the config of an optimizer that are not its options
CLASSY_KEYS = ("name", "num_epochs", "param_schedulers", "param_groups")
GC_KEYS = ("use_gc", "gc_conv_only", "gc_loc")
SPEED_KEYS = ("fused", "foreach")


def label_of(optimizer: ClassyOptimizer) -> str:
    """The name of an optimizer in messages.

    Args:
        optimizer: of a registered class, or of any other, which has its own name.

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> label_of(build_optimizer({"name": "sgd"}))
        "optimizer 'sgd'"
    """
    return f"optimizer {registered_name(type(optimizer), OPTIMIZER_REGISTRY)!r}"


def is_stock(cls: type) -> bool:
    """Whether the class is Classy Vision's own, or our ``zero``, which has the same keys.

    Example:
        >>> is_stock(ZeRO)
        True
    """
    return cls.__module__.startswith(("classy_vision.", "classy_gc.optim.zero"))


def base_config(config: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """The ``base_optimizer`` of an optimizer that wraps another.

    Args:
        config: of the outer optimizer, whose schedules drive both.
        label: names the outer optimizer in messages.

    Raises:
        ValueError: it is not the config of a registered optimizer, or has its own schedules.

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
    for key in ("param_schedulers", "param_groups"):
        if key in base:
            raise ValueError(f"{label}: {key} belong beside base_optimizer, not in it")
    return base


def with_outer_schedules(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``base_optimizer`` of an optimizer config, with the schedules that stand beside it.

    Example:
        >>> with_outer_schedules({"base_optimizer": {"name": "sgd"}, "num_epochs": 2})
        {'num_epochs': 2, 'name': 'sgd'}
    """
    outer = {key: config[key] for key in CLASSY_KEYS if key in config}
    return {**outer, **config["base_optimizer"]}


def group_options(optimizer: ClassyOptimizer) -> tuple[dict[str, Any], dict[str, Rule]]:
    """The options that a parameter group can have, for any optimizer.

    Args:
        optimizer: before it gets its parameters.

    Returns:
        The values that a group has by default, and what each option accepts.

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> values, rules = group_options(build_optimizer({"name": "adam_gc", "lr": 0.5}))
        >>> values["lr"], values["momentum"], "gc_loc" in rules
        (0.5, 0.9, True)
    """
    if isinstance(optimizer, ZeRO):
        return group_options(optimizer.base_optimizer)
    if hasattr(optimizer, "group_options"):  # a ScheduledGC, which imports this module
        return optimizer.group_options()
    # Only the torch optimizer inside knows them, and it needs a parameter.
    probe = copy.copy(optimizer)
    probe.prepare([{"params": [nn.Parameter(torch.zeros(1))]}])
    values = {k: v for k, v in probe.param_groups[0].items() if k != "params"}
    return values, {name: rule_of(name, value) for name, value in values.items()}


def check_stock_optimizer(config: Mapping[str, Any]) -> None:
    """Refuses keys and schedules that a stock optimizer, or ``zero`` around one, would ignore.

    The GC optimizers refuse such keys themselves, and the keys of your own optimizers are not
    checked.

    Args:
        config: of an optimizer; its ``name`` need not be known.

    Raises:
        ValueError: with the key, its value, and what is allowed or the optimizer to use.

    Example:
        >>> check_stock_optimizer({"name": "sgd", "lr": 0.1, "use_gc": True})
        Traceback (most recent call last):
        ValueError: optimizer 'sgd' would ignore use_gc (True); the one with gradient \
centralization is 'sgd_gc'
    """
    name = config.get("name")
    cls = OPTIMIZER_REGISTRY.get(name)
    if cls is None or not is_stock(cls):
        return
    label = f"optimizer {name!r}"
    wraps = issubclass(cls, ZeRO)
    advice = f"the one with gradient centralization is '{name}_gc'"
    if wraps:
        advice = "it belongs in base_optimizer"
    elif f"{name}_gc" not in OPTIMIZER_REGISTRY:
        advice = f"put 'gc' around it: its base_optimizer is {name!r}"
    schedules = config.get("param_schedulers")
    ignored = {key: config[key] for key in GC_KEYS if key in config}
    if isinstance(schedules, Mapping) and not wraps:
        ignored |= {f"param_schedulers.{k}": schedules[k] for k in GC_KEYS if k in schedules}
    if ignored:
        key, value = next(iter(ignored.items()))
        raise ValueError(f"{label} would ignore {key} ({value!r}); {advice}")
    check_known(config, [*CLASSY_KEYS, *inspect.signature(cls).parameters], label)
    if config.get("larc_config") and "use_larc" not in config:
        raise ValueError(f"{label}: larc_config needs use_larc beside it")
    if wraps:
        base_config(config, label)
        check_stock_optimizer(with_outer_schedules(config))
    elif "param_schedulers" in config:
        check_schedulers(config, label, group_options(cls())[1])
