"""From the config of a ParamScheduler to the arguments of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from classy_vision.optim.param_scheduler import UpdateInterval

from classy_gc.options import Rule, check_known

_INTERVAL = Rule("'step' or 'epoch'", lambda v: str(v).lower() in ("step", "epoch"))


def arguments(
    scheduler: type, config: Mapping[str, Any], label: str, rules: Mapping[str, Rule]
) -> dict[str, Any]:
    """Reads a config, which stays as it is.

    Args:
        scheduler: class with a constructor argument a key.
        config: ``name``, the arguments, and ``num_epochs``, which a task adds.
        label: whose it is, for the message.
        rules: of the arguments.

    Raises:
        ValueError: an unknown or missing key, or a value that its rule does not accept.

    Example:
        >>> from classy_gc.optim.param_scheduler import PolynomialFloorParamScheduler as Poly
        >>> arguments(Poly, {"name": "polynomial_floor"}, "scheduler 'polynomial_floor'", {})
        Traceback (most recent call last):
        ValueError: missing key 'start_value' in scheduler 'polynomial_floor'
    """
    options = inspect.signature(scheduler).parameters
    rules = {**rules, "update_interval": _INTERVAL}
    check_known(config, ["name", "num_epochs", *options], label)
    for name, option in options.items():
        if name not in config:
            if option.default is inspect.Parameter.empty:
                raise ValueError(f"missing key {name!r} in {label}")
        elif name in rules and not rules[name].accepts(config[name]):
            raise ValueError(f"{label}: {name} must be {rules[name].allowed}, not {config[name]!r}")
    given = {name: config[name] for name in options if name in config}
    return {**given, "update_interval": UpdateInterval.from_config(config)}
