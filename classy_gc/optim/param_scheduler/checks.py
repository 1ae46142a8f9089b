"""Checks the ParamSchedulers of a config: all are read, and stay in range."""

import copy
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from classy_vision.optim import param_scheduler
from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY, UpdateInterval

from classy_gc import options
from classy_gc.files import warn_once
from classy_gc.options import ANYTHING, COUNT, NON_NEGATIVE, NUMBER, POSITIVE, Rule

#: a length of a ``composite`` in steps or epochs
LENGTH = re.compile(r"(\d+) steps?|(\d+(?:\.\d+)?) epochs?|rest")


def _is_length(value: Any) -> bool:
    return NON_NEGATIVE.accepts(value) or bool(LENGTH.fullmatch(str(value)))


LENGTHS = Rule(
    "a list of shares of the training, 'N steps', 'N epochs' and 'rest'",
    lambda v: isinstance(v, list) and all(map(_is_length, v)),
)

_LIST = Rule("a list", lambda v: isinstance(v, list))
_RULES = {
    **dict.fromkeys(["start_value", "peak_value", "end_value", "base_value", "gamma"], NUMBER),
    **dict.fromkeys(["power", "decay"], POSITIVE),
    **dict.fromkeys(["periods", "num_decays"], COUNT),
    **dict.fromkeys(["schedulers", "values", "interval_scaling"], _LIST),
    "anneal": Rule("'cosine' or 'linear'", lambda v: v in ("cosine", "linear")),
    "lengths": LENGTHS,
    "milestones": Rule(
        "a list of ascending integers > 0",
        lambda v: isinstance(v, list) and v == sorted({k for k in v if COUNT.accepts(k)}),
    ),
    "pct_start": Rule("a number in (0, 1)", lambda v: NUMBER.accepts(v) and 0 < v < 1),
    "scheduler": Rule(
        "a ParamScheduler config, with update_interval beside it and not in it",
        lambda v: isinstance(v, Mapping) and "update_interval" not in v,
    ),
    "update_interval": Rule("'step' or 'epoch'", lambda v: str(v).lower() in ("step", "epoch")),
}


def check_scheduler(
    config: Any, label: str, in_steps: bool = True, num_epochs: float | None = None
) -> None:
    """Refuses arguments that the class of a ParamScheduler would ignore, misread or fail on.

    Args:
        config: ``name``, the arguments of the constructor, and perhaps ``num_epochs``, which a task
            adds. The arguments of your own classes are not checked.
        label: names the scheduler in messages.
        in_steps: whether the lengths of a ``composite`` may be in steps and epochs, see
            :func:`classy_gc.tasks.schedules.with_shares` (default: True)
        num_epochs: of the training, if the config does not have it (default: None, not known)

    Raises:
        ValueError: an unknown name, an unknown or missing key, or a value that is not allowed.

    Example:
        >>> check_scheduler({"name": "linear", "start_value": 1.0}, "param_schedulers.lr")
        Traceback (most recent call last):
        ValueError: missing key 'end_value' in param_schedulers.lr
    """
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"{label} must be a ParamScheduler config with a 'name', not {config!r}")
    options.check_known([config["name"]], PARAM_SCHEDULER_REGISTRY, label, "scheduler")
    cls = PARAM_SCHEDULER_REGISTRY[config["name"]]
    if not cls.__module__.startswith(("classy_vision.", "classy_gc.")):
        return
    defaults: dict[str, Any] = dict.fromkeys(("name", "num_epochs", "update_interval"))
    for name, option in inspect.signature(cls).parameters.items():
        if name == "interval_scaling":  # Classy Vision's from_config has a default
            defaults[name] = None
        elif name != "num_updates":  # num_epochs, which the task knows
            defaults[name] = option.default
    table = {name: (default, _RULES.get(name, ANYTHING)) for name, default in defaults.items()}
    options.check_options(config, table, label)
    num_epochs = config.get("num_epochs", num_epochs)
    texts = [length for length in config.get("lengths", []) if isinstance(length, str)]
    if texts and not in_steps:
        raise ValueError(
            f"{label}: {texts[0]!r} in lengths is only for an outermost scheduler in the commands "
            "of classy-gc and its paramwise tasks; here lengths must be shares"
        )
    if config["name"] == "multistep" and num_epochs is not None:
        _check_milestones(config, label, num_epochs)
    parts = {f"schedulers[{i}]": part for i, part in enumerate(config.get("schedulers", []))}
    if "scheduler" in config:
        parts["scheduler"] = config["scheduler"]
    for name, part in parts.items():
        check_scheduler(part, f"{label}.{name}", in_steps=False, num_epochs=num_epochs)


def _check_milestones(config: Mapping[str, Any], label: str, num_epochs: float) -> None:
    """Checks milestones: fvcore's own error names neither key nor value."""
    changes = len(config["values"]) - 1
    width = math.ceil(num_epochs / (changes + 1))
    milestones = config.get("milestones", [width * (i + 1) for i in range(changes)])
    if len(milestones) != changes or max(milestones, default=0) >= num_epochs:
        raise ValueError(
            f"{label}: milestones must be {changes} epochs < {num_epochs:g}, one for each change "
            f"of value, not {milestones!r}; the default, spaced evenly, may take fewer values"
        )


class CheckedParamScheduler(param_scheduler.ClassyParamScheduler):
    """Base of ParamSchedulers whose config has the arguments of the constructor."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "CheckedParamScheduler":
        """Instantiates the scheduler from a configuration: its arguments, by name.

        Args:
            config: is not changed.

        Raises:
            ValueError: an unknown or missing key, or a value that is not allowed.
        """
        check_scheduler(config, f"scheduler {config['name']!r}")
        given = {name: config[name] for name in inspect.signature(cls).parameters if name in config}
        if "scheduler" in given:
            training = {k: config[k] for k in ("num_epochs",) if k in config}  # composite has it
            inner = {**training, **given["scheduler"]}
            given["scheduler"] = param_scheduler.build_param_scheduler(inner)
        return cls(**given | {"update_interval": UpdateInterval.from_config(config)})


def check_schedulers(config: Mapping[str, Any], label: str, rules: Mapping[str, Rule]) -> None:
    """Refuses ``param_schedulers`` that are not read, cannot be built, or leave the range of their
    option.

    Args:
        config: of the optimizer; its ``param_schedulers`` (option: ParamScheduler config) are
            built and tried if it has ``num_epochs``, which a task adds.
        label: names their owner in messages.
        rules: of the options.

    Raises:
        ValueError: with the key, its value, and what is allowed.
    """
    given = config.get("param_schedulers", {})
    if not isinstance(given, Mapping):
        raise ValueError(f"{label}: param_schedulers must map options to schedulers, not {given!r}")
    known = [name for name, rule in rules.items() if rule.schedulable]
    options.check_known(given, known, f"param_schedulers of {label}")
    for name, scheduler in given.items():
        key = f"{label}: param_schedulers.{name}"
        if config.get("num_epochs") is None:
            check_scheduler(scheduler, key)
        else:
            build_scheduler(scheduler, key, rules[name], config["num_epochs"])


def build_scheduler(
    config: Any, label: str, rule: Rule, num_epochs: float | None
) -> param_scheduler.ParamScheduler:
    """Builds a ParamScheduler and checks that it stays in the range of its option.

    Args:
        config: of the ParamScheduler; not changed.
        label: names the scheduler in messages.
        rule: of the option that it drives.
        num_epochs: of the training; None if it is not known.

    Raises:
        ValueError: with the key, its value, and what is allowed.
    """
    if num_epochs is not None and isinstance(config, Mapping):
        config = {**config, "num_epochs": num_epochs}
    check_scheduler(config, label, in_steps=False)
    try:
        built = param_scheduler.build_param_scheduler(copy.deepcopy(config))
        values = {at: built(at) for at in (*(i / 100 for i in range(100)), 0.999)}
    except Exception as error:  # a scheduler may raise anything
        advice = "; it may need num_epochs beside param_schedulers" if num_epochs is None else ""
        raise ValueError(f"{label}: {error or type(error).__name__}{advice}") from error
    in_epochs = config["name"] == "step" and built.update_interval == UpdateInterval.EPOCH
    if in_epochs and len(config["values"]) > (num_epochs or math.inf):
        warn_once(
            f"{label} has {len(config['values'])} values, one an epoch, and the training has "
            f'num_epochs {num_epochs:g}: train longer, or set its update_interval to "step"'
        )
    for at, x in values.items():
        if not rule.accepts(x):
            raise ValueError(f"{label} must be {rule.allowed}, not {x!r} at {at:.0%} of training")
    return built
