"""The arguments of ParamSchedulers in a config, Classy Vision's own and ours."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from classy_vision.optim import param_scheduler
from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY, UpdateInterval

from classy_gc.optim.param_scheduler.lengths import LENGTHS
from classy_gc.options import COUNT, MAPPING, NUMBER, POSITIVE, Rule, check_known, is_integer

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
        lambda v: isinstance(v, list) and v == sorted({k for k in v if is_integer(k) and k > 0}),
    ),
    "pct_start": Rule("a number in (0, 1)", lambda v: NUMBER.accepts(v) and 0 < v < 1),
    "scheduler": MAPPING,
    "update_interval": Rule("'step' or 'epoch'", lambda v: str(v).lower() in ("step", "epoch")),
}


def check_scheduler(config: Any, label: str, in_steps: bool = True) -> None:
    """Refuses what the class of a ParamScheduler would ignore, stumble over or misread.

    Args:
        config: ``name``, the arguments of the constructor, and perhaps ``num_epochs``, which a
            task adds. What classes of somebody else read is not known.
        label: what it is, for the message.
        in_steps: whether the lengths of a ``composite`` may be in steps and epochs, see
            :func:`classy_gc.optim.param_scheduler.lengths.with_shares` (default: True)

    Raises:
        ValueError: an unknown name, an unknown or missing key, or a value that is not allowed.

    Example:
        >>> check_scheduler({"name": "linear", "start_value": 1.0}, "param_schedulers.lr")
        Traceback (most recent call last):
        ValueError: missing key 'end_value' in param_schedulers.lr
    """
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"{label} must be a ParamScheduler config with a 'name', not {config!r}")
    check_known([config["name"]], PARAM_SCHEDULER_REGISTRY, label, "scheduler")
    cls = PARAM_SCHEDULER_REGISTRY[config["name"]]
    if not cls.__module__.startswith(("classy_vision.", "classy_gc.")):
        return
    options = dict(inspect.signature(cls).parameters)
    options.pop("num_updates", None)  # num_epochs, which the task knows
    check_known(config, ["name", "num_epochs", "update_interval", *options], label)
    for name, option in options.items():
        if option.default is option.empty and name not in (*config, "interval_scaling"):
            raise ValueError(f"missing key {name!r} in {label}")
    for name, rule in _RULES.items():
        if name in config and not rule.accepts(config[name]):
            raise ValueError(f"{label}: {name} must be {rule.allowed}, not {config[name]!r}")
    num_epochs = config.get("num_epochs")
    texts = [length for length in config.get("lengths", []) if isinstance(length, str)]
    if texts and not in_steps:
        raise ValueError(
            f"{label}: {texts[0]!r} in lengths is for an outermost scheduler, and for the commands "
            "of classy-gc and the tasks 'paramwise_classification_task' and "
            "'paramwise_fine_tuning', which know how long an epoch is; here lengths must be shares"
        )
    if config["name"] == "multistep" and num_epochs is not None:
        _check_milestones(config, label, num_epochs)
    for name, part in _parts(config):
        check_scheduler(part, f"{label}.{name}", in_steps=False)


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schedulers in a scheduler, with the number of epochs that the outer one knows."""
    parts = {f"schedulers[{i}]": part for i, part in enumerate(config.get("schedulers", []))}
    if "scheduler" in config:
        parts["scheduler"] = config["scheduler"]
    for name, part in parts.items():
        if "num_epochs" in config and isinstance(part, Mapping):
            part = {**part, "num_epochs": config["num_epochs"]}
        yield name, part


def _check_milestones(config: Mapping[str, Any], label: str, num_epochs: float) -> None:
    """What fvcore says of them names neither key nor value."""
    changes = len(config["values"]) - 1
    milestones = config.get("milestones")
    if milestones is None:  # as fvcore spaces them
        width = math.ceil(num_epochs / (changes + 1))
        milestones = [width * (i + 1) for i in range(changes)]
    if len(milestones) != changes or (milestones and milestones[-1] >= num_epochs):
        raise ValueError(
            f"{label}: milestones must be {changes} epochs < {num_epochs:g}, one for each change "
            f"of value, not {milestones!r}"
        )


class CheckedParamScheduler(param_scheduler.ClassyParamScheduler):
    """Base of ParamSchedulers whose config holds the arguments of the constructor."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CheckedParamScheduler:
        """Instantiates the scheduler from a configuration: its arguments, by name.

        Args:
            config: stays as it is.

        Raises:
            ValueError: an unknown or missing key, or a value that is not allowed.
        """
        check_scheduler(config, f"scheduler {config['name']!r}")
        given = {name: config[name] for name in inspect.signature(cls).parameters if name in config}
        return cls(**given | {"update_interval": UpdateInterval.from_config(config)})
