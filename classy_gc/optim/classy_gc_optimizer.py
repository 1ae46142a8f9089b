"""From a Classy Vision config to a core optimizer: defaults, validation, schedules."""

from __future__ import annotations

import copy
import difflib
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer
from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY, UpdateInterval
from fvcore.common.param_scheduler import ConstantParamScheduler, ParamScheduler

from classy_gc.core import CentralizedOptimizer, fused_supported


class Rule(NamedTuple):
    """What an option accepts."""

    allowed: str  # completes "must be …"
    accepts: Callable[[Any], bool]
    schedulable: bool = True


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _betas(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(_number(b) and 0 <= b < 1 for b in value)
    )


NON_NEGATIVE = Rule("a number >= 0", lambda v: _number(v) and v >= 0)
FRACTION = Rule("a number in [0, 1)", lambda v: _number(v) and 0 <= v < 1)
BETAS = Rule("a list of two numbers in [0, 1)", _betas, schedulable=False)
BOOL = Rule("true or false", lambda v: isinstance(v, bool), schedulable=False)
SWITCH = Rule("true, false or null", lambda v: v is None or isinstance(v, bool), schedulable=False)
GC_FLAG = Rule("true or false", lambda v: isinstance(v, bool))

#: what every GC optimizer accepts besides its own options: (default, rule)
GC_OPTIONS = {"use_gc": (False, GC_FLAG), "gc_conv_only": (False, GC_FLAG)}
SPEED_OPTIONS = {"fused": (None, SWITCH), "foreach": (None, SWITCH)}

#: keys of an optimizer config that are Classy Vision's own
CLASSY_KEYS = ("name", "num_epochs", "param_schedulers")


_GC_DOC = """use_gc (bool): centralize gradients (default: False)
        gc_conv_only (bool): leave tensors of up to three dimensions alone (default: False)"""
_SPEED_DOC = """fused (bool, optional): torch's fused kernels (default: None, where all parameters
            support them)
        foreach (bool, optional): torch's multi-tensor kernels (default: None, which leaves
            the choice to torch)"""
_RAISES_DOC = """ValueError: an unknown key, or a value out of its range."""


def check_known(names: Iterable[Any], known: Iterable[str], where: str, kind: str = "key") -> None:
    """Refuses names that nobody would read.

    Args:
        names: what was given.
        known: what would be read.
        where: completes "unknown key 'x' in …".
        kind: what the names are (default: "key").

    Raises:
        ValueError: naming the first unknown name, the nearest known one, and all known ones.

    Example:
        >>> check_known(["momentun"], ["lr", "momentum"], "optimizer 'sgd_gc'")
        Traceback (most recent call last):
        ValueError: unknown key 'momentun' in optimizer 'sgd_gc', did you mean 'momentum'? \
known: lr, momentum
    """
    known = list(known)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1)
            hint = f", did you mean {nearest[0]!r}?" if nearest else ";"
            raise ValueError(f"unknown {kind} {name!r} in {where}{hint} known: {', '.join(known)}")


def _with_intervals(options: Mapping[str, Any]) -> dict[str, Any]:
    """Gives fvcore's own schedulers the update interval that Classy Vision reads."""
    result = dict(options)
    for name, value in options.items():
        if isinstance(value, ParamScheduler) and not hasattr(value, "update_interval"):
            result[name] = copy.copy(value)
            result[name].update_interval = UpdateInterval.STEP
    return result


def _check_scheduler(config: Any, where: str) -> None:
    """Refuses what Classy Vision's scheduler builders would ignore or stumble over."""
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"{where} must be a ParamScheduler config with a 'name', not {config!r}")
    check_known([config["name"]], PARAM_SCHEDULER_REGISTRY, where, "scheduler")
    cls = PARAM_SCHEDULER_REGISTRY[config["name"]]
    if cls.__module__.startswith("classy_vision."):  # of others we don't know the keys
        known = set(inspect.signature(cls).parameters) - {"num_updates"}
        check_known(config, ["name", "num_epochs", "update_interval", *sorted(known)], where)
    for i, part in enumerate(config.get("schedulers", ())):
        _check_scheduler(part, f"{where}.schedulers[{i}]")


class ClassyGCOptimizer(ClassyOptimizer):
    """A Classy Vision optimizer around one of :mod:`classy_gc.core`.

    A subclass names its ``core_class`` and its ``options``; everything else is here. What
    ``__init__`` and ``from_config`` accept is that table, :data:`GC_OPTIONS` and
    :data:`SPEED_OPTIONS`.

    ParamSchedulers drive every numeric option and the GC options; a scheduled ``use_gc`` is
    on while its value is not zero. Where the core optimizer has ``betas``, a schedule of
    ``momentum`` drives ``betas[0]``.

    Args:
        **options: by keyword; see the subclass.

    Raises:
        ValueError: an unknown option, or a value out of its range, named with the value and
            what is allowed.

    Example:
        >>> from classy_gc.optim import SGDGC
        >>> optimizer = SGDGC(lr=0.5, use_gc=True)
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer.set_param_groups([weight])
        >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
        >>> optimizer.step(where=0.0)
        >>> weight.tolist(), optimizer.options_view.use_gc
        ([[1.5, 0.5]], True)
    """

    core_class: ClassVar[type[CentralizedOptimizer]]
    #: option: (default, rule), in the order of the core class
    options: ClassVar[dict[str, tuple[Any, Rule]]] = {}
    #: defaults that differ between a JSON config and the constructor
    config_defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            for key, text in (("gc", _GC_DOC), ("speed", _SPEED_DOC), ("raises", _RAISES_DOC)):
                cls.__doc__ = cls.__doc__.replace(f"{{{key}}}", text)
        cls.__signature__ = inspect.Signature(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, (default, _) in cls._table().items()
        )

    @classmethod
    def _table(cls) -> dict[str, tuple[Any, Rule]]:
        gc_loc = cls.core_class.added_defaults.get("gc_loc") if hasattr(cls, "core_class") else None
        gc = GC_OPTIONS if gc_loc is None else {**GC_OPTIONS, "gc_loc": (gc_loc, GC_FLAG)}
        return {**cls.options, **gc, **SPEED_OPTIONS}

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = self._validated(options)
        self._resumed_without_schedule = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ClassyGCOptimizer:
        """Instantiates the optimizer from a configuration, which stays as it is.

        Args:
            config: ``name``, the options of the class, and optionally ``param_schedulers``
                (option: ParamScheduler config) and ``num_epochs``, which the task adds.

        Raises:
            ValueError: an unknown key, a value out of its range, or a schedule for what
                cannot be scheduled.
        """
        where = cls._label()
        options = {k: v for k, v in config.items() if k not in CLASSY_KEYS}
        check_known(config, [*CLASSY_KEYS, *cls._table()], where)
        schedulers = config.get("param_schedulers", {})
        if not isinstance(schedulers, Mapping):
            raise ValueError(
                f"{where}: param_schedulers must map options to schedulers, not {schedulers!r}"
            )
        check_known(schedulers, cls._schedulable(), f"param_schedulers of {where}")
        for name, scheduler in schedulers.items():
            _check_scheduler(scheduler, f"{where}: param_schedulers.{name}")
        return cls(**{**cls.config_defaults, **options})

    @classmethod
    def _label(cls) -> str:
        names = [name for name, c in OPTIMIZER_REGISTRY.items() if c is cls]
        return f"optimizer {(names or [cls.__name__])[0]!r}"

    @classmethod
    def _schedulable(cls) -> list[str]:
        table = cls._table()
        # As torch's OneCycleLR has it, the momentum of an Adam is its first beta.
        return [k for k, (_, rule) in table.items() if rule.schedulable] + (
            ["momentum"] if "betas" in table else []
        )

    @classmethod
    def _validated(cls, options: dict[str, Any]) -> dict[str, Any]:
        table, where = cls._table(), cls._label()
        check_known(options, table, where)
        for name, value in options.items():
            rule = table[name][1]
            if not rule.accepts(value):
                raise ValueError(f"{where}: {name} must be {rule.allowed}, not {value!r}")
        options = {name: options.get(name, default) for name, (default, _) in table.items()}
        if "betas" in options:
            options["betas"] = tuple(map(float, options["betas"]))
        try:  # what torch says of options that do not go together, before anything is built
            cls.core_class([torch.zeros(1)], **options)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{where}: {error}") from error
        return options

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        """As Classy Vision's, for fvcore's own ParamSchedulers too (updated at every step).

        Args:
            param_groups: tensors, or dicts with ``params`` and, for the group, values or
                ParamSchedulers of options.
            **kwargs: values or ParamSchedulers of options for all groups.

        Raises:
            ValueError: an option that the optimizer does not have or cannot schedule.
        """
        if isinstance(param_groups, Mapping):
            param_groups = [param_groups]
        param_groups = list(param_groups) if param_groups is not None else []
        groups = [g for g in param_groups if isinstance(g, Mapping)]
        for options in (kwargs, *groups):
            check_known(options, ["params", *self._schedulable()], self._label())
        super().set_param_groups(
            [_with_intervals(g) if isinstance(g, Mapping) else g for g in param_groups],
            **_with_intervals(kwargs),
        )

    def _run_schedulers(
        self, where: float, update_interval: UpdateInterval | None
    ) -> list[dict[str, Any]]:
        groups = super()._run_schedulers(where, update_interval)
        if "betas" in self._options:
            for group in groups:
                if "momentum" in group:
                    group["betas"] = (group.pop("momentum"), self._options["betas"][1])
        return groups

    def prepare(self, param_groups: Any) -> None:
        """Builds the core optimizer; called by ``set_param_groups``.

        Args:
            param_groups: as for torch, once the model is on its device.
        """
        groups = list(param_groups)
        if groups and not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        options = dict(self._options)
        if options["fused"] is None and not options["foreach"]:
            options["fused"] = all(fused_supported(p) for g in groups for p in g["params"]) or None
        self.optimizer = self.core_class(groups, **options)
        if not options["use_gc"] and not any("use_gc" in group for group in groups):
            logging.info(f"{self._label()}: use_gc is off, a baseline without GC")

    def step(
        self, *args: Any, closure: Callable[[], Any] | None = None, where: float | None = None
    ) -> None:
        """As Classy Vision's.

        Args:
            closure: reevaluates the model and returns the loss (default: None).
            where: the share of training done, in [0, 1); required.
        """
        if self._resumed_without_schedule and where is not None:
            self._update_schedule(self._run_schedulers(where, UpdateInterval.EPOCH))
            self._resumed_without_schedule = False
        super().step(*args, closure=closure, where=where)

    def set_classy_state(self, state: dict[str, Any]) -> None:
        """Resumes from a checkpoint of this optimizer, or of the stock one of its kind.

        Moments and the other options come from the checkpoint. GC options and the speed
        switches stay as configured; where a GC option differs, one warning says so. A
        scheduled GC option goes on where it was.

        Args:
            state: what ``get_classy_state`` returned.
        """
        saved = state["optim"]
        schedules = self._param_group_schedulers or [{} for _ in self.optimizer.param_groups]
        groups, differ = [], {}
        for current, schedule, group in zip(
            self.optimizer.param_groups, schedules, saved["param_groups"], strict=False
        ):
            group = dict(group)
            for name in ("use_gc", "gc_conv_only", "gc_loc"):
                if name not in current:
                    continue
                scheduler = schedule.get(name)
                if scheduler is not None and not isinstance(scheduler, ConstantParamScheduler):
                    self._resumed_without_schedule |= name not in group
                    continue
                if bool(group.get(name, current[name])) != bool(current[name]):
                    differ[name] = (group[name], current[name])
                group[name] = current[name]
            groups.append(group | {name: current[name] for name in SPEED_OPTIONS})
        groups += saved["param_groups"][len(groups) :]
        super().set_classy_state({**state, "optim": {**saved, "param_groups": groups}})
        if differ:
            logging.warning(
                f"{self._label()}: the config wins over the checkpoint: "
                + ", ".join(f"{k} is {new} (was {old})" for k, (old, new) in differ.items())
            )
