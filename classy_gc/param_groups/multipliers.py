"""The options that the parameter groups of an optimizer can have, and their multipliers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer
from classy_vision.optim.param_scheduler import UpdateInterval
from fvcore.common.param_scheduler import ParamScheduler

from classy_gc.optim.groups import check_schedulable
from classy_gc.optim.param_scheduler.checks import build_scheduler
from classy_gc.optim.stock import group_options
from classy_gc.options import BOOL, NON_NEGATIVE, check_known, registered_name

#: the option that each multiplier multiplies
MULTIPLIERS = {"lr_mult": "lr", "decay_mult": "weight_decay"}


@dataclass(frozen=True)
class ScaledParamScheduler(ParamScheduler):
    """``multiplier × scheduler(where)``, updated as often as the scheduler.

    Args:
        scheduler: the one to multiply.
        multiplier: the factor.

    Example:
        >>> from fvcore.common.param_scheduler import LinearParamScheduler
        >>> ScaledParamScheduler(LinearParamScheduler(1.0, 0.0), 0.5)(0.5)
        0.25
    """

    scheduler: ParamScheduler
    multiplier: float

    @property
    def update_interval(self) -> UpdateInterval:
        return getattr(self.scheduler, "update_interval", UpdateInterval.STEP)

    def __call__(self, where: float) -> float:
        return self.multiplier * self.scheduler(where)


class OptimizerOptions:
    """The options of an optimizer that a group can have: their values, schedules and rules.

    Args:
        optimizer: before it gets its parameters.
        schedules: of the task, option: ParamScheduler (default: None, none).
        num_epochs: of the training, for schedules that are built later (default: 1).

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> options = OptimizerOptions(build_optimizer({"name": "sgd_gc", "lr": 0.5}))
        >>> options.values["lr"], options.values["momentum"]
        (0.5, 0.0)
        >>> options.resolve({"lr_mult": 0.1}, "options of 'weight'")
        {'lr': 0.05}
        >>> options.resolve({"momentun": 0.9}, "options of 'weight'")
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown key 'momentun' in options of 'weight' \
(optimizer 'sgd_gc'), did you mean 'momentum'? known: lr_mult, decay_mult, ...
    """

    def __init__(
        self,
        optimizer: ClassyOptimizer,
        schedules: Mapping[str, Any] | None = None,
        num_epochs: float = 1,
    ) -> None:
        self.label = f"optimizer {registered_name(type(optimizer), OPTIMIZER_REGISTRY)!r}"
        self.schedules = schedules or {}
        self.num_epochs = num_epochs
        self.values, self.rules = group_options(optimizer)
        self._built: dict[str, ParamScheduler] = {}
        self._known = {
            **dict.fromkeys(MULTIPLIERS, NON_NEGATIVE._replace(schedulable=False)),
            "bn_weight_decay": BOOL,
            **self.rules,
        }

    def require(self, option: str, label: str) -> None:
        """Refuses what needs an option that the optimizer does not have, or a decay that is 0.

        Args:
            option: of the optimizer.
            label: names what needs it.

        Raises:
            ValueError: with both, and the known options.
        """
        if option not in self.rules:
            raise ValueError(
                f"{label} needs {option!r}, which {self.label} does not have; "
                f"known: {', '.join(self.rules)}"
            )
        if option == "weight_decay" and not {**self.values, **self.schedules}[option]:
            raise ValueError(f"{label} multiplies 'weight_decay', which is 0 in {self.label}")

    def resolve(
        self, options: Mapping[str, Any], label: str, without_decay: bool = False
    ) -> dict[str, Any]:
        """The values and ParamSchedulers of a group, with the task's schedules, multiplied.

        Args:
            options: as a builder returns them.
            label: names their owner in messages.
            without_decay: whether the weight decay is 0 if they do not set it (default: False).

        Raises:
            ValueError: an option that the optimizer does not have, or a value that it does not
                accept, with the key, the value, and what is allowed.
        """
        check_known(options, self._known, f"{label} ({self.label})")
        given = {name: self._scheduler_or_value(name, v, label) for name, v in options.items()}
        check_schedulable(given, self.rules, label)
        if "betas" in given and "momentum" in given:
            raise ValueError(f"{label}: momentum drives the first of betas; give one")
        result = dict(self.schedules)
        if without_decay and "weight_decay" in self.rules:
            result["weight_decay"] = 0.0
        result |= {name: value for name, value in given.items() if name in self.rules}
        if given.get("nesterov") and {**self.values, **result}.get("momentum") == 0:
            raise ValueError(f"{label}: nesterov must be false where momentum is 0, not True")
        for multiplier, name in MULTIPLIERS.items():
            if multiplier in given and name not in given:
                self.require(name, f"{multiplier} of {label}")
            factor = given.get(multiplier, 1)
            if factor != 1:
                value = result.get(name, self.values.get(name))
                scheduled = isinstance(value, ParamScheduler)
                result[name] = ScaledParamScheduler(value, factor) if scheduled else factor * value
        return result

    def _scheduler_or_value(self, name: str, value: Any, label: str) -> Any:
        if isinstance(value, ParamScheduler):
            return value
        rule = self._known[name]
        if isinstance(value, Mapping) and rule.schedulable:
            # Equal configs share one object, so that their parameters share a group.
            key = json.dumps([name, value], sort_keys=True, default=id)
            if key not in self._built:
                text = f"{label}: {name}"
                self._built[key] = build_scheduler(value, text, name, rule, self.num_epochs)
            return self._built[key]
        if not rule.accepts(value):
            raise ValueError(f"{label}: {name} must be {rule.allowed}, not {value!r}")
        return tuple(value) if isinstance(value, list) else value
