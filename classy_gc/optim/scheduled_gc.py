"""What every GC optimizer does with parameter groups, schedules and checkpoints."""

from __future__ import annotations

import logging
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, ClassyOptimizer
from classy_vision.optim.param_scheduler import ConstantParamScheduler, UpdateInterval
from fvcore.common.param_scheduler import ParamScheduler

from classy_gc.optim.param_scheduler.checks import with_intervals
from classy_gc.optim.resume import resumed_state
from classy_gc.options import FRACTION, Rule, registered_name


def log_baseline(label: str, options: Mapping[str, Any], groups: Iterable[Mapping]) -> None:
    """Says once that an optimizer runs without GC, unless a group or a schedule turns it on."""
    if not options["use_gc"] and not any("use_gc" in group for group in groups):
        logging.info(f"{label}: use_gc is off, a baseline without GC")


def as_groups(param_groups: Any) -> list[dict[str, Any]]:
    """Parameter groups in one form: dicts with lists of tensors, and ``param_names`` if named.

    Args:
        param_groups: tensors, ``(name, tensor)`` pairs as ``named_parameters()`` gives them, or
            a dict or dicts whose ``params`` are either.

    Raises:
        ValueError: there are none.

    Example:
        >>> as_groups(torch.nn.Linear(2, 1).named_parameters())[0]["param_names"]
        ['weight', 'bias']
    """
    groups = [param_groups] if isinstance(param_groups, Mapping) else list(param_groups)
    if not groups:
        raise ValueError("optimizer got an empty parameter list")
    if not isinstance(groups[0], Mapping):
        groups = [{"params": groups}]
    return [_as_group(group) for group in groups]


def _as_group(group: Mapping[str, Any]) -> dict[str, Any]:
    params = group["params"]
    params = [params] if isinstance(params, torch.Tensor) else list(params)
    if params and all(isinstance(p, tuple) for p in params):
        names, params = map(list, zip(*params, strict=True))
        return {**group, "params": params, "param_names": names}
    return {**group, "params": params}


def _schedulers(options: Mapping[str, Any]) -> dict[str, Any]:
    """What Classy Vision takes for the values of a group, which are numbers there."""
    result = with_intervals(options)
    for name, value in options.items():
        if name != "params" and not isinstance(value, (int, float, ParamScheduler)):
            constant = tuple(value) if isinstance(value, list) else value
            result[name] = ConstantParamScheduler(constant)
    return result


def with_momentum(
    values: dict[str, Any], rules: dict[str, Rule]
) -> tuple[dict[str, Any], dict[str, Rule]]:
    """Values and rules of options, with the ``momentum`` that drives the first of ``betas``.

    Args:
        values: of the options of a group.
        rules: of the same options.

    Returns:
        Both, as they were where there are no ``betas``.

    Example:
        >>> with_momentum({"betas": (0.9, 0.99)}, {})[0]["momentum"]
        0.9
    """
    if "betas" in values:
        values = {**values, "momentum": values.get("momentum", values["betas"][0])}
        rules = {**rules, "momentum": rules.get("momentum", FRACTION)}
    return values, rules


def momentum_drives_betas(optimizer: torch.optim.Optimizer) -> None:
    """Lets the ``momentum`` of a group, where it has one, be the first of its ``betas``.

    As in torch's ``OneCycleLR``. Schedules write the ``momentum``, whoever runs them: the
    optimizer itself, ``gc`` around it, or ``zero``.

    Args:
        optimizer: one without betas stays as it is.
    """
    if "betas" in optimizer.defaults:
        optimizer.register_step_pre_hook(_drive_betas)


def _drive_betas(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["betas"] = (group["momentum"], group["betas"][1])


class ScheduledGC(ClassyOptimizer):
    """What every GC optimizer does with schedules and checkpoints, whatever it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.num_epochs: float | None = None  # as the schedules count them, if a config says
        self._resumed = False

    @classmethod
    def label(cls) -> str:
        """For messages."""
        return f"optimizer {registered_name(cls, OPTIMIZER_REGISTRY)!r}"

    @abstractmethod
    def group_options(self) -> tuple[dict[str, Any], dict[str, Rule]]:
        """The options that a parameter group can have.

        Returns:
            The values that a group has where it does not say, and what each option accepts;
            where the first of ``betas`` can be driven, ``momentum`` too.

        Example:
            >>> from classy_gc.optim import AdamGC
            >>> values, rules = AdamGC(lr=0.5).group_options()
            >>> values["lr"], values["momentum"], rules["lr"].allowed
            (0.5, 0.9, 'a number >= 0')
        """

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        """As Classy Vision's, for fvcore's own ParamSchedulers too (updated at every step).

        Args:
            param_groups: tensors, ``(name, tensor)`` pairs, or dicts with ``params`` and, for
                the group, values or ParamSchedulers of options.
            **kwargs: values or ParamSchedulers of options for all groups.

        Raises:
            ValueError: an option that the optimizer does not have or cannot schedule.
        """
        groups = as_groups(param_groups)
        names = [group.pop("param_names", None) for group in groups]
        super().set_param_groups([_schedulers(group) for group in groups], **_schedulers(kwargs))
        for group, own in zip(self.optimizer.param_groups, names, strict=True):
            if own is not None:
                group["param_names"] = own

    def catch_up(self, where: float | None, optimizer: ClassyOptimizer | None = None) -> None:
        """Sets the options of schedules that change by the epoch to what they are now.

        Only the first time after a checkpoint was loaded, which may come from other schedules.

        Args:
            where: the share of training done, in [0, 1); None does nothing.
            optimizer: the ``zero`` around this one (default: None, there is none).
        """
        if self._resumed and where is not None:
            if self.num_epochs:  # with gradient accumulation the first step is not at the start
                epochs = math.floor(where * self.num_epochs + ParamScheduler.WHERE_EPSILON)
                where = epochs / self.num_epochs
            optimizer = optimizer or self
            optimizer._update_schedule(optimizer._run_schedulers(where, UpdateInterval.EPOCH))
            self._resumed = False

    def step(
        self, *args: Any, closure: Callable[[], Any] | None = None, where: float | None = None
    ) -> None:
        """As Classy Vision's.

        Args:
            closure: reevaluates the model and returns the loss (default: None).
            where: the share of training done, in [0, 1); required.
        """
        self.catch_up(where)
        super().step(*args, closure=closure, where=where)

    def set_classy_state(self, state: dict[str, Any]) -> None:
        """Resumes from a checkpoint of any optimizer of its kind, stock, GC or ``gc`` around one.

        Moments and options come from the checkpoint, as with the stock optimizers, but for
        scheduled options, the GC options and the speed switches, which are as configured. One
        warning names what differs.

        Args:
            state: what ``get_classy_state`` returned.

        Raises:
            ValueError: the state is of another kind of optimizer.
        """
        self._load(super().set_classy_state, state)

    def _load(self, load: Callable[[dict[str, Any]], None], state: dict[str, Any]) -> None:
        resumed = self.resumed(state)
        with warnings.catch_warnings():
            # The core's, of a GC option that was scheduled: its schedule goes on.
            warnings.filterwarnings("ignore", r"\w+\.load_state_dict: the state says")
            load(resumed)

    def resumed(
        self, state: dict[str, Any], optimizer: ClassyOptimizer | None = None
    ) -> dict[str, Any]:
        """The state to load in place of a checkpoint's, see :func:`resumed_state`.

        Args:
            state: what ``get_classy_state`` returned; stays as it is.
            optimizer: the ``zero`` around this one (default: None, there is none).
        """
        self._resumed = True
        return resumed_state(state, optimizer or self, self.optimizer, self.label())
