"""ParamSchedulers of an optimizer: refused where nobody would read them, or out of range."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Mapping
from typing import Any

from classy_vision.optim.param_scheduler import UpdateInterval, build_param_scheduler
from fvcore.common.param_scheduler import ConstantParamScheduler, ParamScheduler

from classy_gc.optim.param_scheduler.arguments import check_scheduler
from classy_gc.options import NUMBER, Rule, check_known


def with_intervals(options: Mapping[str, Any]) -> dict[str, Any]:
    """Gives fvcore's own schedulers the update interval that Classy Vision reads."""
    result = dict(options)
    for name, value in options.items():
        if isinstance(value, ParamScheduler) and not hasattr(value, "update_interval"):
            result[name] = copy.copy(value)
            result[name].update_interval = UpdateInterval.STEP
    return result


def check_schedulable(options: Mapping[str, Any], rules: Mapping[str, Rule], label: str) -> None:
    """Refuses ParamSchedulers of options that are read once, or are no numbers.

    Args:
        options: of a parameter group, values or ParamSchedulers.
        rules: of its options.
        label: whose they are, for the message.

    Raises:
        ValueError: naming the option, and those that can be scheduled.
    """
    for name, value in options.items():
        scheduled = isinstance(value, ParamScheduler) and not isinstance(
            value, ConstantParamScheduler
        )
        if scheduled and name in rules and not rules[name].schedulable:
            known = ", ".join(name for name, rule in rules.items() if rule.schedulable)
            raise ValueError(f"{label}: {name} cannot be scheduled; these can: {known}")


@functools.cache  # an optimizer is built several times
def _warn_once(text: str) -> None:
    logging.warning(text)


def check_schedulers(
    config: Mapping[str, Any], label: str, rules: Mapping[str, Rule] | None = None
) -> None:
    """Refuses ``param_schedulers`` that nobody would read, nobody could build, or that leave
    the range of their option.

    Args:
        config: of the optimizer; its ``param_schedulers`` (option: ParamScheduler config) are
            built and tried where it has ``num_epochs``, which a task adds.
        label: whose they are, for the message.
        rules: of the options that can be scheduled (default: None, any).

    Raises:
        ValueError: naming the key, what it is, and what is allowed.
    """
    schedulers = config.get("param_schedulers", {})
    if not isinstance(schedulers, Mapping):
        raise ValueError(
            f"{label}: param_schedulers must map options to schedulers, not {schedulers!r}"
        )
    if rules is not None:
        check_known(schedulers, rules, f"param_schedulers of {label}")
    for name, scheduler in schedulers.items():
        key = f"{label}: param_schedulers.{name}"
        build_scheduler(
            scheduler, key, name, (rules or {}).get(name, NUMBER), config.get("num_epochs")
        )


def build_scheduler(
    config: Any, label: str, option: str, rule: Rule, num_epochs: float | None
) -> ParamScheduler | None:
    """Builds a ParamScheduler once it is found to stay in the range of its option.

    Args:
        config: of the ParamScheduler, which stays as it is.
        label: what it is, for the message.
        option: which it drives.
        rule: of the option.
        num_epochs: of the training; None if that is not known, and nothing is built then.

    Raises:
        ValueError: naming the key, what it is, and what is allowed.
    """
    if num_epochs is not None and isinstance(config, Mapping):
        config = {**config, "num_epochs": num_epochs}
    check_scheduler(config, label, in_steps=num_epochs is None)
    if num_epochs is None:
        return None
    try:
        built = build_param_scheduler(copy.deepcopy(config))
        values = {at: built(at) for at in (*(i / 100 for i in range(100)), 0.999)}
    except Exception as error:
        raise ValueError(f"{label}: {error or type(error).__name__}") from error
    in_epochs = getattr(built, "update_interval", None) == UpdateInterval.EPOCH
    if config["name"] == "step" and in_epochs and len(config["values"]) > num_epochs:
        _warn_once(
            f"{label} has {len(config['values'])} values, of which {num_epochs:g} epochs take one "
            'each: train longer, or set its update_interval to "step"'
        )
    for at, value in values.items():
        if not rule.accepts(value):
            raise ValueError(
                f"{label} is {value!r} at {at:.0%} of training, and {option} must be {rule.allowed}"
            )
    return built
