"""Checks an optimizer's config as a whole, whatever the optimizer, before anything is built."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer, build_optimizer
from classy_vision.optim.zero import ZeRO

from classy_gc.optim.classy_gc_optimizer import CLASSY_KEYS
from classy_gc.optim.param_scheduler.checks import check_schedulers
from classy_gc.optim.scheduled_gc import ScheduledGC
from classy_gc.optim.stock import base_config, check_no_gc_keys, is_stock, stock_group_options
from classy_gc.options import Rule, check_known


def group_options(optimizer: ClassyOptimizer) -> tuple[dict[str, Any], dict[str, Rule]]:
    """The options that a parameter group of any optimizer can have.

    Args:
        optimizer: not yet given its parameters.

    Returns:
        The values that a group has where it does not say, and what each option accepts.

    Example:
        >>> values, rules = group_options(build_optimizer({"name": "adam_gc", "lr": 0.5}))
        >>> values["lr"], values["momentum"], "gc_loc" in rules
        (0.5, 0.9, True)
    """
    if isinstance(optimizer, ZeRO):
        return group_options(optimizer.base_optimizer)
    if isinstance(optimizer, ScheduledGC):
        return optimizer.group_options()
    return stock_group_options(optimizer)


def check_optimizer(config: Mapping[str, Any]) -> None:
    """Refuses keys and schedules that a stock optimizer, or ``zero`` around one, would ignore.

    The GC optimizers refuse them themselves, and what one's own optimizers read is not known.

    Args:
        config: of an optimizer with a registered ``name``.

    Raises:
        ValueError: naming the key, its value, and what is allowed.

    Example:
        >>> check_optimizer({"name": "sgd", "momentun": 0.9})
        Traceback (most recent call last):
        ValueError: unknown key 'momentun' in optimizer 'sgd', did you mean 'momentum'? known: ...
    """
    check_no_gc_keys(config)
    cls = OPTIMIZER_REGISTRY[config["name"]]
    if not is_stock(cls):
        return
    label = f"optimizer {config['name']!r}"
    known = inspect.signature(cls).parameters
    check_known(config, [*CLASSY_KEYS, "param_groups", *known], label)
    if cls is ZeRO:
        base = base_config(config, label)
        check_optimizer(base)
    if "param_schedulers" in config:
        # The stock from_config methods write into what they are given.
        optimizer = build_optimizer(copy.deepcopy(dict(base))) if cls is ZeRO else cls()
        rules = group_options(optimizer)[1]
        check_schedulers(config, label, {k: rule for k, rule in rules.items() if rule.schedulable})
