"""The base class of builders of parameter groups, what they get, and their registry."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from classy_vision.optim import ClassyOptimizer
from classy_vision.optim.param_scheduler import UpdateInterval
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from classy_gc.optim.param_scheduler.checks import build_scheduler
from classy_gc.optim.stock import group_options, label_of
from classy_gc.options import BOOL, NON_NEGATIVE, Rule, check_known, check_options, without_comments

#: the option that each multiplier multiplies
MULTIPLIERS = {"lr_mult": "lr", "decay_mult": "weight_decay"}


class NamedParameter(NamedTuple):
    """A parameter and its place in the model."""

    prefix: str  #: full name of the module that holds it, "" for the model itself
    name: str  #: its name in that module
    parameter: nn.Parameter
    module: nn.Module  #: that module
    parents: tuple[nn.Module, ...]  #: of the module, from the model down

    @property
    def full_name(self) -> str:
        """As in ``model.named_parameters()``; parameters of the loss start with ``loss.``."""
        return f"{self.prefix}.{self.name}" if self.prefix else self.name


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
        schedules: of the task, option: ParamScheduler.
        num_epochs: of the training, for schedules that are built later.

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> options = OptimizerOptions(build_optimizer({"name": "sgd_gc", "lr": 0.5}), {}, 1)
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
        self, optimizer: ClassyOptimizer, schedules: Mapping[str, Any], num_epochs: float
    ) -> None:
        self.label = label_of(optimizer)
        self.schedules = schedules
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
            lacks = f"{label} needs {option!r}, which {self.label} does not have"
            raise ValueError(f"{lacks}; known: {', '.join(self.rules)}")
        if option == "weight_decay" and not {**self.values, **self.schedules}[option]:
            raise ValueError(f"{label} multiplies 'weight_decay', which is 0 in {self.label}")

    def resolve(self, options: Mapping[str, Any], label: str) -> dict[str, Any]:
        """The values and ParamSchedulers of a group, with the task's schedules, multiplied.

        Args:
            options: as a builder returns them.
            label: names their owner in messages.

        Raises:
            ValueError: an option that the optimizer does not have, or a value that it does not
                accept, with the key, the value, and what is allowed.
        """
        check_known(options, self._known, f"{label} ({self.label})")
        given = {name: self._scheduler_or_value(name, v, label) for name, v in options.items()}
        if "betas" in given and "momentum" in given:
            raise ValueError(f"{label}: momentum drives the first of betas; give one")
        result = {**self.schedules, **{k: v for k, v in given.items() if k in self.rules}}
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
                self._built[key] = build_scheduler(value, f"{label}: {name}", rule, self.num_epochs)
            return self._built[key]
        if not rule.accepts(value):
            raise ValueError(f"{label}: {name} must be {rule.allowed}, not {value!r}")
        return tuple(value) if isinstance(value, list) else value


class ParamGroupBuilder(ABC):
    """Says which options of the optimizer differ for which parameter.

    Args:
        **options: by keyword, those in :attr:`OPTIONS`; they become attributes. Every builder has
            ``bypass_duplicate`` (bool): leave out the second occurrence of a shared parameter, with
            a warning, instead of raising an error (default: False).

    Raises:
        ValueError: an unknown option, or a value that its rule does not accept.
    """

    #: option: (default, rule)
    OPTIONS: ClassVar[dict[str, tuple[Any, Rule]]] = {"bypass_duplicate": (False, BOOL)}
    bypass_duplicate: bool
    #: the registered name
    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        vars(self).update(check_options(options, self.OPTIONS, self.label()))

    @classmethod
    def label(cls) -> str:
        """The name in messages."""
        return f"param_groups {vars(cls).get('name', cls.__name__)!r}"

    @abstractmethod
    def options(
        self, model: nn.Module, parameters: list[NamedParameter], optimizer: OptimizerOptions
    ) -> list[dict[str, Any]]:
        """Returns the options that differ for each parameter.

        Args:
            model: of the task.
            parameters: of model and loss, in the order of ``named_parameters()``, with frozen and
                shared ones, whose options are not used.
            optimizer: the options of the optimizer, and their rules.

        Returns:
            One dict per parameter. Options are numbers, bools or ParamSchedulers (built, or as a
            config). In addition, ``lr_mult`` multiplies ``lr`` and ``decay_mult`` multiplies
            ``weight_decay``, schedules included; ``bn_weight_decay`` (bool) replaces the task's.
        """


_Builder = TypeVar("_Builder", bound=type[ParamGroupBuilder])

PARAM_GROUP_BUILDER_REGISTRY: dict[str, type[ParamGroupBuilder]] = {}


def register_param_group_builder(name: str) -> Callable[[_Builder], _Builder]:
    """Registers a :class:`ParamGroupBuilder` subclass under its ``name`` in configs.

    Args:
        name: one that is not taken.

    Raises:
        ValueError: the name is taken.

    Example:
        >>> @register_param_group_builder("half_rate_for_vectors")
        ... class HalfRateForVectors(ParamGroupBuilder):
        ...     def options(self, model, parameters, optimizer):
        ...         return [{"lr_mult": 0.5} if p.parameter.ndim == 1 else {} for p in parameters]
        >>> build_param_group_builder({"name": "half_rate_for_vectors"}).bypass_duplicate
        False
        >>> del PARAM_GROUP_BUILDER_REGISTRY["half_rate_for_vectors"]
    """

    def register(cls: _Builder) -> _Builder:
        if name in PARAM_GROUP_BUILDER_REGISTRY:
            raise ValueError(f"param_groups {name!r} is {PARAM_GROUP_BUILDER_REGISTRY[name]}")
        PARAM_GROUP_BUILDER_REGISTRY[name] = cls
        cls.name = name
        return cls

    return register


def build_param_group_builder(config: Mapping[str, Any]) -> ParamGroupBuilder:
    """Builds the builder that the ``param_groups`` of an optimizer config describe.

    Args:
        config: ``name`` and the options of the builder; not changed. ``custom_imports`` of the task
            import a builder of your own.

    Raises:
        ValueError: no name, an unknown name, or an option that the builder refuses.

    Example:
        >>> build_param_group_builder({"name": "layer_decay", "decay": 0.75}).decay
        0.75
        >>> build_param_group_builder({"name": "layerdecay"})
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown name 'layerdecay' in param_groups, did you mean ...
    """
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"param_groups must be an object with a 'name', not {config!r}")
    options = without_comments(config)
    name = options.pop("name")
    check_known([name], sorted(PARAM_GROUP_BUILDER_REGISTRY), "param_groups", "name")
    return PARAM_GROUP_BUILDER_REGISTRY[name](**options)
