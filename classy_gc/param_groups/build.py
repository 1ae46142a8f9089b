"""From the options of each parameter to few parameter groups."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer
from classy_vision.optim.param_scheduler import (
    ConstantParamScheduler,
    UpdateInterval,
)
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from classy_gc.optim.check import values_and_rules
from classy_gc.optim.schedules import build_scheduler, refuse_schedules, with_intervals
from classy_gc.options import BOOL, NON_NEGATIVE, check_known
from classy_gc.param_groups.param_group_builder import NamedParameter, ParamGroupBuilder

#: multiplier: the option that it multiplies
MULTIPLIERS = {"lr_mult": "lr", "decay_mult": "weight_decay"}


class ScaledParamScheduler(ParamScheduler):
    """``multiplier × scheduler(where)``, updated as often as the scheduler.

    Args:
        scheduler: what to multiply.
        multiplier: by what.

    Example:
        >>> from fvcore.common.param_scheduler import LinearParamScheduler
        >>> ScaledParamScheduler(LinearParamScheduler(1.0, 0.0), 0.5)(0.5)
        0.25
    """

    def __init__(self, scheduler: ParamScheduler, multiplier: float) -> None:
        self.scheduler = scheduler
        self.multiplier = multiplier
        self.update_interval = getattr(scheduler, "update_interval", UpdateInterval.STEP)

    def __call__(self, where: float) -> float:
        return self.multiplier * self.scheduler(where)


class OptimizerOptions:
    """The options of an optimizer that a group can have: their values, schedules and rules.

    Args:
        optimizer: not yet given its parameters.
        schedules: of the task, option: ParamScheduler (default: None, none).
        num_epochs: of the training, for schedules yet to be built (default: 1).

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> options = OptimizerOptions(build_optimizer({"name": "sgd_gc", "lr": 0.5}))
        >>> options.values["lr"], options.values["momentum"]
        (0.5, 0.0)
        >>> options.check({"momentun": 0.9}, "custom_keys 'blocks'")
        Traceback (most recent call last):
        ValueError: unknown key 'momentun' in custom_keys 'blocks' (optimizer 'sgd_gc'), did you \
mean 'momentum'? known: lr_mult, decay_mult, bn_weight_decay, lr, momentum, ...
    """

    def __init__(
        self,
        optimizer: ClassyOptimizer,
        schedules: Mapping[str, Any] | None = None,
        num_epochs: float = 1,
    ) -> None:
        names = [name for name, c in OPTIMIZER_REGISTRY.items() if c is type(optimizer)]
        self.label = f"optimizer {(names or [type(optimizer).__name__])[0]!r}"
        self.schedules = with_intervals(schedules or {})
        self.num_epochs = num_epochs
        self.values, self.rules = values_and_rules(optimizer)
        self._built: dict[str, ParamScheduler] = {}
        self._known = {
            **dict.fromkeys(MULTIPLIERS, NON_NEGATIVE._replace(schedulable=False)),
            "bn_weight_decay": BOOL,
            **self.rules,
        }

    def require(self, multiplier: str, where: str) -> None:
        """Refuses a multiplier of an option that the optimizer does not have.

        Args:
            multiplier: one of :data:`MULTIPLIERS`.
            where: what asks for it.

        Raises:
            ValueError: naming both, and the options that there are.
        """
        if MULTIPLIERS[multiplier] not in self.rules:
            raise ValueError(
                f"{where} multiplies {MULTIPLIERS[multiplier]!r}, which {self.label} does not "
                f"have; known: {', '.join(self.rules)}"
            )

    def check(self, options: Mapping[str, Any], where: str) -> None:
        """Refuses options that the optimizer does not have, and values that they do not accept.

        Args:
            options: as a builder returns them.
            where: whose they are, for the message.

        Raises:
            ValueError: naming the key, the value, and what is allowed.
        """
        check_known(options, self._known, f"{where} ({self.label})")
        for name, value in options.items():
            if name in MULTIPLIERS:
                self.require(name, f"{name} of {where}")
            self._scheduler_or_value(name, value, where)
        momentum = {**self.values, **self.schedules, **options}.get("momentum")
        if options.get("nesterov") and momentum == 0:
            raise ValueError(f"{where}: nesterov must be false where momentum is 0, not True")
        if "betas" in options and "momentum" in options:
            raise ValueError(f"{where}: momentum drives the first of betas; give one")
        refuse_schedules(options, self.rules, where)

    def _scheduler_or_value(self, name: str, value: Any, where: str) -> Any:
        if isinstance(value, ParamScheduler):
            return value
        rule = self._known[name]
        if isinstance(value, Mapping) and rule.schedulable:
            # One object for equal configs, so that their parameters share a group.
            key = json.dumps([name, value], sort_keys=True, default=id)
            if key not in self._built:
                self._built[key] = build_scheduler(
                    value, f"{where}: {name}", name, rule, self.num_epochs
                )
            return self._built[key]
        if not rule.accepts(value):
            raise ValueError(f"{where}: {name} must be {rule.allowed}, not {value!r}")
        return tuple(value) if isinstance(value, list) else value

    def resolve(self, options: Mapping[str, Any], without_decay: bool, where: str) -> dict:
        """The options of a group as ``set_param_groups`` takes them, each a ParamScheduler.

        Args:
            options: as a builder returns them.
            without_decay: whether the weight decay is 0 where they do not give it.
            where: whose they are, for the message.
        """
        base = dict(self.schedules)
        if without_decay and "weight_decay" in self.rules:
            base["weight_decay"] = 0.0
        for name, value in with_intervals(options).items():
            if name in self.rules:
                base[name] = self._scheduler_or_value(name, value, where)
        for multiplier, name in MULTIPLIERS.items():
            factor = options.get(multiplier, 1)
            if factor == 1:
                continue
            value = base.get(name, self.values.get(name))
            scheduled = isinstance(value, ParamScheduler)
            base[name] = ScaledParamScheduler(value, factor) if scheduled else factor * value
        return {
            name: value if isinstance(value, ParamScheduler) else ConstantParamScheduler(value)
            for name, value in base.items()
        }


def parameter_occurrences(root: nn.Module, prefix: str = "") -> Iterator[NamedParameter]:
    """Every parameter with the modules that hold it; shared ones more than once.

    Args:
        root: whose parameters.
        prefix: of their names, with a dot between (default: none).

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2, bias=False)))
        >>> [(p.full_name, p.prefix, len(p.parents)) for p in parameter_occurrences(model)]
        [('0.0.weight', '0.0', 2)]
    """
    modules = dict(root.named_modules(prefix=prefix, remove_duplicate=False))
    for path, module in modules.items():
        above = [path[:i] for i, c in enumerate(path) if c == "."]
        above = [p for p in ["", *above] if p in modules and p != path]
        parents = tuple(modules[p] for p in above)
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield NamedParameter(path, name, parameter, module, parents)


def build_param_groups(
    builder: ParamGroupBuilder,
    model: nn.Module,
    optimizer: ClassyOptimizer,
    loss: nn.Module | None = None,
    schedules: Mapping[str, Any] | None = None,
    num_epochs: float = 1,
    bn_weight_decay: bool = False,
) -> list[dict[str, Any]]:
    """Groups for ``ClassyOptimizer.set_param_groups``, one for each set of equal options.

    The groups are in the order of their first parameters, so that a checkpoint resumes.

    Args:
        builder: says what differs for which parameter.
        model: whose parameters are trained; frozen ones are left out.
        optimizer: not yet given its parameters.
        loss: whose parameters are trained too, named ``loss.…`` (default: None).
        schedules: of the task, option: ParamScheduler (default: None, none).
        num_epochs: of the training (default: 1).
        bn_weight_decay: whether BatchNorm decays where the builder does not speak of it
            (default: False).

    Returns:
        A dict a group: ``params``, and the ParamScheduler of each option that is not simply
        the optimizer's own. The parameters' names are ``param_names`` beside ``params``; take
        them out before ``set_param_groups``.

    Raises:
        ValueError: an option or value that the optimizer refuses, what the builder refuses, a
            shared parameter without ``bypass_duplicate``, or nothing to train.

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> from classy_gc.param_groups import build_param_group_builder
        >>> builder = build_param_group_builder({"name": "paramwise", "bias_lr_mult": 2})
        >>> optimizer = build_optimizer({"name": "sgd_gc", "lr": 0.25})
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> for group in build_param_groups(builder, model, optimizer):
        ...     print(group["param_names"], {k: group[k](0) for k in group if k == "lr"})
        ['0.weight', '1.weight'] {}
        ['0.bias', '1.bias'] {'lr': 0.5}
    """
    options = OptimizerOptions(optimizer, schedules, num_epochs)
    named = list(parameter_occurrences(model))
    if loss is not None:
        named += parameter_occurrences(loss, "loss")
    wanted = builder.options(model, named, options)
    if len(wanted) != len(named):
        raise ValueError(
            f"{builder.label()} must return options for {len(named)} parameters, not {len(wanted)}"
        )
    groups: dict[str, dict[str, Any]] = {}
    resolved: dict[str, dict[str, ParamScheduler]] = {}
    seen: dict[int, str] = {}
    for parameter, own in zip(named, wanted, strict=True):
        if not parameter.parameter.requires_grad:
            continue
        name = parameter.full_name
        first = seen.setdefault(id(parameter.parameter), name)
        if first != name:
            if not builder.bypass_duplicate:
                raise ValueError(
                    f"some parameters appear in more than one parameter group: {name!r} is "
                    f"{first!r}; 'bypass_duplicate': true in param_groups leaves it out"
                )
            logging.warning(f"{builder.label()}: {name} is {first}, and is left out")
            continue
        own = dict(own)
        decays = own.get("bn_weight_decay", bn_weight_decay)
        without_decay = not decays and isinstance(parameter.module, _BatchNorm)
        asked = json.dumps([own, without_decay], sort_keys=True, default=id)
        if asked not in resolved:
            where = f"options of {name!r} from {builder.label()}"
            options.check(own, where)
            resolved[asked] = options.resolve(own, without_decay, where)
        effective = {**options.values, **resolved[asked]}
        effective = {k: _identity(v) for k, v in effective.items()}
        key = json.dumps(effective, sort_keys=True, default=str)
        group = groups.setdefault(key, {"params": [], "param_names": [], **resolved[asked]})
        group["params"].append(parameter.parameter)
        group["param_names"].append(name)
    if not groups:
        raise ValueError("there is nothing to train: every parameter is frozen")
    return list(groups.values())


def _identity(value: Any) -> Any:
    """Equal where two options are."""
    if isinstance(value, ConstantParamScheduler):
        return _identity(value(0))
    if isinstance(value, ScaledParamScheduler):
        return ["scaled", value.multiplier, _identity(value.scheduler)]
    if isinstance(value, ParamScheduler):
        return ["scheduler", id(value)]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number else value
