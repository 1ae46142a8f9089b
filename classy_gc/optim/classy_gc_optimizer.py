"""From a Classy Vision config to a core optimizer: defaults, validation, schedules."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer
from classy_vision.optim.param_scheduler import (
    PARAM_SCHEDULER_REGISTRY,
    UpdateInterval,
    build_param_scheduler,
)
from fvcore.common.param_scheduler import ConstantParamScheduler, ParamScheduler

from classy_gc.core import CentralizedOptimizer, RMSprop
from classy_gc.optim.fused import fused_supported
from classy_gc.options import (
    BETAS,
    BOOL,
    FRACTION,
    GC_FLAG,
    NUMBER,
    SWITCH,
    Rule,
    check_known,
    check_options,
)

#: what every GC optimizer accepts besides its own options: (default, rule)
GC_OPTIONS = {"use_gc": (False, GC_FLAG), "gc_conv_only": (False, GC_FLAG)}
SPEED_OPTIONS = {"fused": (None, SWITCH), "foreach": (None, SWITCH)}

#: keys of an optimizer config that are Classy Vision's own
CLASSY_KEYS = ("name", "num_epochs", "param_schedulers")


_GC_DOC = """use_gc (bool): centralize gradients row by row; a row is what the first index of a
            tensor selects, whatever module holds it (default: False)
        gc_conv_only (bool): leave tensors of up to three dimensions alone (default: False)"""
_SPEED_DOC = """fused (bool, optional): torch's fused kernels (default: None, where all parameters
            support them)
        foreach (bool, optional): torch's multi-tensor kernels (default: None, which leaves
            the choice to torch)"""
_RAISES_DOC = """ValueError: an unknown key, or a value out of its range."""


def log_baseline(where: str, options: Mapping[str, Any], groups: Iterable[Mapping]) -> None:
    """Says once that an optimizer runs without GC, unless a group or a schedule turns it on."""
    if not options["use_gc"] and not any("use_gc" in group for group in groups):
        logging.info(f"{where}: use_gc is off, a baseline without GC")


def with_intervals(options: Mapping[str, Any]) -> dict[str, Any]:
    """Gives fvcore's own schedulers the update interval that Classy Vision reads."""
    result = dict(options)
    for name, value in options.items():
        if isinstance(value, ParamScheduler) and not hasattr(value, "update_interval"):
            result[name] = copy.copy(value)
            result[name].update_interval = UpdateInterval.STEP
    return result


def refuse_param_groups(config: Mapping[str, Any], where: str) -> None:
    """Says which tasks read ``param_groups``: one that does has taken them out of the config.

    Args:
        config: of the optimizer.
        where: whose it is, for the message.

    Raises:
        ValueError: they are there.
    """
    if "param_groups" in config:
        raise ValueError(
            f"{where}: param_groups needs the task 'paramwise_classification_task' or "
            "'paramwise_fine_tuning', which read it beside the name of their optimizer"
        )


def check_schedulers(
    config: Mapping[str, Any], where: str, rules: Mapping[str, Rule] | None = None
) -> None:
    """Refuses ``param_schedulers`` that nobody would read, nobody could build, or that leave
    the range of their option.

    Args:
        config: of the optimizer; its ``param_schedulers`` (option: ParamScheduler config) are
            built and tried where it has ``num_epochs``, which a task adds.
        where: whose they are, for the message.
        rules: of the options that can be scheduled (default: None, any).

    Raises:
        ValueError: naming the key, what it is, and what is allowed.
    """
    schedulers = config.get("param_schedulers", {})
    if not isinstance(schedulers, Mapping):
        raise ValueError(
            f"{where}: param_schedulers must map options to schedulers, not {schedulers!r}"
        )
    if rules is not None:
        check_known(schedulers, rules, f"param_schedulers of {where}")
    for name, scheduler in schedulers.items():
        key = f"{where}: param_schedulers.{name}"
        build_scheduler(
            scheduler, key, name, (rules or {}).get(name, NUMBER), config.get("num_epochs")
        )


def build_scheduler(
    config: Any, where: str, option: str, rule: Rule, num_epochs: float | None
) -> ParamScheduler | None:
    """Builds a ParamScheduler once it is found to stay in the range of its option.

    Args:
        config: of the ParamScheduler, which stays as it is.
        where: what it is, for the message.
        option: which it drives.
        rule: of the option.
        num_epochs: of the training; None if that is not known, and nothing is built then.

    Raises:
        ValueError: naming the key, what it is, and what is allowed.
    """
    _check_scheduler(config, where)
    if num_epochs is None:
        return None
    try:
        built = build_param_scheduler(copy.deepcopy({**config, "num_epochs": num_epochs}))
        values = {at: built(at) for at in (*(i / 100 for i in range(100)), 0.999)}
    except Exception as error:
        raise ValueError(f"{where}: {error or type(error).__name__}") from error
    for at, value in values.items():
        if not (NUMBER if rule is GC_FLAG else rule).accepts(value):
            raise ValueError(
                f"{where} is {value!r} at {at:.0%} of training, and {option} must be {rule.allowed}"
            )
    return built


def _check_scheduler(config: Any, where: str) -> None:
    """Refuses what Classy Vision's scheduler builders would ignore or stumble over."""
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"{where} must be a ParamScheduler config with a 'name', not {config!r}")
    check_known([config["name"]], PARAM_SCHEDULER_REGISTRY, where, "scheduler")
    cls = PARAM_SCHEDULER_REGISTRY[config["name"]]
    if not cls.__module__.startswith(("classy_vision.", "classy_gc.")):
        return  # we don't know its keys
    known = set(inspect.signature(cls).parameters) - {"num_updates"}
    check_known(config, ["name", "num_epochs", "update_interval", *sorted(known)], where)
    if "scheduler" in config:
        _check_scheduler(config["scheduler"], f"{where}.scheduler")
    parts = config.get("schedulers", [])
    if not isinstance(parts, list):
        raise ValueError(
            f"{where}.schedulers must be a list of ParamScheduler configs, not {parts!r}"
        )
    for i, part in enumerate(parts):
        _check_scheduler(part, f"{where}.schedulers[{i}]")


def _momentum_drives_betas(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Where another optimizer, ``zero``, runs the schedules and writes them into the groups."""
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["betas"] = (group["momentum"], group["betas"][1])


class ScheduledGC(ClassyOptimizer):
    """What every GC optimizer does with schedules and checkpoints, whatever it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self._resumed_without_schedule = False

    @classmethod
    def _label(cls) -> str:
        names = [name for name, c in OPTIMIZER_REGISTRY.items() if c is cls]
        return f"optimizer {(names or [cls.__name__])[0]!r}"

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
        super().set_param_groups(
            [with_intervals(g) if isinstance(g, Mapping) else g for g in param_groups],
            **with_intervals(kwargs),
        )

    def _refresh_schedules(self, where: float | None) -> None:
        """Catches up with schedules of GC options that a resumed checkpoint knew nothing of."""
        if self._resumed_without_schedule and where is not None:
            self._update_schedule(self._run_schedulers(where, UpdateInterval.EPOCH))
            self._resumed_without_schedule = False

    def step(
        self, *args: Any, closure: Callable[[], Any] | None = None, where: float | None = None
    ) -> None:
        """As Classy Vision's.

        Args:
            closure: reevaluates the model and returns the loss (default: None).
            where: the share of training done, in [0, 1); required.
        """
        self._refresh_schedules(where)
        super().step(*args, closure=closure, where=where)

    def set_classy_state(self, state: dict[str, Any]) -> None:
        """Resumes from a checkpoint of this optimizer, or of the stock one of its kind.

        Moments and the other options come from the checkpoint. GC options and the speed
        switches stay as configured; where a GC option differs, one warning says so. A
        scheduled GC option goes on where it was.

        Args:
            state: what ``get_classy_state`` returned.
        """
        super().set_classy_state(self._merged(state))

    def _merged(self, state: dict[str, Any]) -> dict[str, Any]:
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
                    current[name] = group.get(name, current[name])  # what the core need not say
                    continue
                if bool(group.get(name, current[name])) != bool(current[name]):
                    differ[name] = (group[name], current[name])
                group[name] = current[name]
            switches = {name: current[name] for name in SPEED_OPTIONS if name in current}
            groups.append({**group, **switches})
        groups += saved["param_groups"][len(groups) :]
        if differ:
            logging.warning(
                f"{self._label()}: the config wins over the checkpoint: "
                + ", ".join(f"{k} is {new} (was {old})" for k, (old, new) in differ.items())
            )
        return {**state, "optim": {**saved, "param_groups": groups}}


class ClassyGCOptimizer(ScheduledGC):
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
        gc = dict(GC_OPTIONS)
        if "gc_loc" in cls.core_class.added_defaults:
            gc["gc_loc"] = (cls.core_class.added_defaults["gc_loc"], GC_FLAG)
        known = inspect.signature(cls.core_class).parameters
        speed = {name: option for name, option in SPEED_OPTIONS.items() if name in known}
        return {**cls.options, **gc, **speed}

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = self._validated(options)

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
        refuse_param_groups(config, where)
        check_known(config, [*CLASSY_KEYS, *cls._table()], where)
        check_schedulers(config, where, cls._schedulable())
        return cls(**{**cls.config_defaults, **options})

    @classmethod
    def _schedulable(cls) -> dict[str, Rule]:
        rules = {name: rule for name, (_, rule) in cls._table().items() if rule.schedulable}
        # As torch's OneCycleLR has it, the momentum of an Adam is its first beta.
        return {**rules, "momentum": FRACTION} if "betas" in cls.options else rules

    @classmethod
    def _group_rules(cls) -> dict[str, Rule]:
        """Of the options that can differ between groups."""
        rules = {
            name: rule
            for name, (_, rule) in cls._table().items()
            if rule in (BETAS, BOOL) and name in inspect.signature(cls.core_class).parameters
        }
        return {**cls._schedulable(), **rules}

    @classmethod
    def _validated(cls, options: dict[str, Any]) -> dict[str, Any]:
        options = check_options(options, cls._table(), cls._label())
        if "betas" in options:
            options["betas"] = tuple(map(float, options["betas"]))
        core_class, core_options = cls._core(options)
        try:  # what torch says of options that do not go together, before anything is built
            core_class([torch.zeros(1, 1)], **core_options)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{cls._label()}: {error}") from error
        return options

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        if isinstance(param_groups, Mapping):
            param_groups = [param_groups]
        param_groups = list(param_groups)
        if "weight_decay" not in self._options:
            # Which Classy Vision's tasks set to 0 for BatchNorm, whatever the optimizer.
            param_groups = [
                {k: v for k, v in g.items() if k != "weight_decay" or v}
                if isinstance(g, Mapping)
                else g
                for g in param_groups
            ]
        for options in (kwargs, *(g for g in param_groups if isinstance(g, Mapping))):
            check_known(options, ["params", *self._group_rules()], self._label())
        super().set_param_groups(param_groups, **kwargs)

    @classmethod
    def _core(cls, options: dict[str, Any]) -> tuple[type[CentralizedOptimizer], dict[str, Any]]:
        """The core class and its options."""
        return cls.core_class, options

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
        if options.get("fused", True) is None and not options["foreach"]:
            options["fused"] = all(self._fuses(p) for g in groups for p in g["params"]) or None
        log_baseline(self._label(), options, groups)  # before torch writes into the groups
        core_class, core_options = self._core(options)
        self.optimizer = core_class(groups, **core_options)
        if "betas" in core_options:
            self.optimizer.register_step_pre_hook(_momentum_drives_betas)

    def _fuses(self, p: torch.Tensor) -> bool:
        """Whether the fused kernel is the better choice for ``p``."""
        # torch has no fused RMSprop, and ours is for the CPU.
        return fused_supported(p) and (p.is_cpu or not issubclass(self.core_class, RMSprop))
