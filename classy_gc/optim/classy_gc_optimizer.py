"""From a Classy Vision config to a core optimizer: defaults, validation, schedules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from classy_gc.core import CentralizedOptimizer, RMSprop
from classy_gc.optim.fused import fused_supported
from classy_gc.optim.param_scheduler.checks import check_schedulable, check_schedulers
from classy_gc.optim.scheduled_gc import (
    ScheduledGC,
    as_groups,
    log_baseline,
    momentum_drives_betas,
    with_momentum,
)
from classy_gc.options import (
    FRACTION,
    GC_FLAG,
    SWITCH,
    Rule,
    check_known,
    check_options,
    without_comments,
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


def check_no_param_groups(config: Mapping[str, Any], label: str) -> None:
    """Says which tasks read ``param_groups``: one that does has taken them out of the config.

    Args:
        config: of the optimizer.
        label: whose it is, for the message.

    Raises:
        ValueError: they are there.
    """
    if "param_groups" in config:
        raise ValueError(
            f"{label}: param_groups needs the task 'paramwise_classification_task' or "
            "'paramwise_fine_tuning', which read it beside the name of their optimizer"
        )


class ClassyGCOptimizer(ScheduledGC):
    """A Classy Vision optimizer around one of :mod:`classy_gc.core`.

    A subclass names its ``core_class`` and its ``options``; everything else is here. What
    ``__init__`` and ``from_config`` accept is that table, :data:`GC_OPTIONS` and
    :data:`SPEED_OPTIONS`.

    ParamSchedulers drive every numeric option and the GC options; a scheduled ``use_gc`` is
    on while its value is not zero. Where the core optimizer has ``betas``, a schedule of
    ``momentum`` drives ``betas[0]``.

    Args:
        *args, **options: see the subclass; positional as in the stock class of the name.

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

    core_class: ClassVar[type[torch.optim.Optimizer]]
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
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            for name, (default, _) in cls._table().items()
        )

    @classmethod
    def _added_defaults(cls) -> Mapping[str, Any]:
        # One of torch's own classes is centralized once it is built.
        return getattr(cls.core_class, "added_defaults", CentralizedOptimizer.added_defaults)

    @classmethod
    def _table(cls) -> dict[str, tuple[Any, Rule]]:
        gc, added = dict(GC_OPTIONS), cls._added_defaults()
        if "gc_loc" in added:
            gc["gc_loc"] = (added["gc_loc"], GC_FLAG)
        known = inspect.signature(cls.core_class).parameters
        speed = {name: option for name, option in SPEED_OPTIONS.items() if name in known}
        return {**cls.options, **gc, **speed}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()
        given = dict(zip(self._table(), args, strict=False))
        if len(args) > len(given) or given.keys() & options.keys():
            inspect.signature(type(self)).bind(*args, **options)  # Python's own words
        self._options = self._validated({**given, **options})

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
        label = cls.label()
        config = without_comments(config)
        options = {k: v for k, v in config.items() if k not in CLASSY_KEYS}
        check_no_param_groups(config, label)
        check_known(config, [*CLASSY_KEYS, *cls._table()], label)
        check_schedulers(config, label, cls._schedulable())
        optimizer = cls(**{**cls.config_defaults, **options})
        optimizer.num_epochs = config.get("num_epochs")
        return optimizer

    @classmethod
    def _schedulable(cls) -> dict[str, Rule]:
        rules = {name: rule for name, (_, rule) in cls._table().items() if rule.schedulable}
        # As torch's OneCycleLR has it, the momentum of an Adam is its first beta.
        return {**rules, "momentum": FRACTION} if "betas" in cls.options else rules

    @classmethod
    def _group_rules(cls) -> dict[str, Rule]:
        """Of the options that can differ between groups."""
        known = {*inspect.signature(cls.core_class).parameters, *cls._added_defaults()}
        rules = {
            name: rule
            for name, (_, rule) in cls._table().items()
            if name in known and name not in SPEED_OPTIONS
        }
        return {**rules, **cls._schedulable()}

    def group_options(self) -> tuple[dict[str, Any], dict[str, Rule]]:
        return with_momentum(dict(self._options), self._group_rules())

    @classmethod
    def _validated(cls, options: dict[str, Any]) -> dict[str, Any]:
        options = check_options(options, cls._table(), cls.label())
        if "betas" in options:
            options["betas"] = tuple(map(float, options["betas"]))
        try:  # what torch says of options that do not go together, before anything is built
            cls._built([torch.zeros(1, 1)], options)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{cls.label()}: {error}") from error
        return options

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        groups = list(map(self._checked_group, as_groups(param_groups)))
        for options in (self._checked_group(kwargs), *groups):
            check_schedulable(options, self._group_rules(), self.label())
        super().set_param_groups(groups, **kwargs)

    def _checked_group(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The group, once it is found to have no option that the optimizer lacks."""
        group = dict(group)
        if "weight_decay" not in self._options and group.get("weight_decay") == 0:
            # Which Classy Vision's tasks give BatchNorm, whatever the optimizer.
            del group["weight_decay"]
        check_known(group, ["params", "param_names", *self._group_rules()], self.label())
        return group

    @classmethod
    def _built(cls, params: list[Any], options: dict[str, Any]) -> CentralizedOptimizer:
        """The core optimizer."""
        return cls.core_class(params, **options)

    def prepare(self, param_groups: Any) -> None:
        """Builds the core optimizer; called by ``set_param_groups``.

        Args:
            param_groups: as for torch, once the model is on its device.
        """
        groups = list(param_groups)
        if groups and not isinstance(groups[0], Mapping):
            groups = as_groups(groups)
        groups = list(map(self._checked_group, groups))  # zero calls this alone
        options = dict(self._options)
        if options.get("fused", True) is None and not options["foreach"]:
            options["fused"] = all(self._fuses(p) for g in groups for p in g["params"]) or None
        log_baseline(self.label(), options, groups)  # before torch writes into the groups
        self.optimizer = self._built(groups, options)
        momentum_drives_betas(self.optimizer)

    def _fuses(self, p: torch.Tensor) -> bool:
        """Whether the fused kernel is the better choice for ``p``."""
        # torch has no fused RMSprop, and ours is for the CPU.
        return fused_supported(p) and (p.is_cpu or not issubclass(self.core_class, RMSprop))
