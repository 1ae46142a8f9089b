"""Parameter groups, schedules and checkpoints, the same for every GC optimizer."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from classy_vision.optim import ClassyOptimizer, param_scheduler
from classy_vision.optim.param_scheduler import UpdateInterval
from fvcore.common.param_scheduler import ConstantParamScheduler, ParamScheduler

from classy_gc.optim.param_scheduler.checks import build_scheduler, check_schedulers
from classy_gc.optim.resume import resumed_state
from classy_gc.optim.stock import label_of
from classy_gc.options import FRACTION, Rule, check_known


def as_groups(param_groups: Any) -> list[dict[str, Any]]:
    """Parameter groups as dicts with lists of tensors, and ``param_names`` if they are named.

    Args:
        param_groups: tensors, ``(name, tensor)`` pairs as ``named_parameters()`` gives them, or
            a dict or dicts whose ``params`` are either.

    Raises:
        ValueError: there are no parameters.

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


def as_schedulers(options: dict[str, Any], rules: dict[str, Rule], label: str) -> dict[str, Any]:
    """The options of a group as the ParamSchedulers that Classy Vision takes.

    Args:
        options: values, or ParamSchedulers, also fvcore's own, which are updated at every step.
        rules: of the options.
        label: names their owner in messages.

    Raises:
        ValueError: a schedule of an option that is read only once or is not a number, with those
            that can be scheduled.

    Example:
        >>> as_schedulers({"lr": 0.1, "betas": [0.9, 0.99]}, {}, "group")["betas"](where=0.5)
        (0.9, 0.99)
    """
    known = [name for name, rule in rules.items() if rule.schedulable]
    result = dict(options)
    for name, value in options.items():
        if name == "params":
            continue
        if not isinstance(value, ParamScheduler):
            as_in_torch = tuple(value) if name == "betas" else value
            result[name] = param_scheduler.ConstantParamScheduler(as_in_torch)
        elif name in rules and name not in known and not isinstance(value, ConstantParamScheduler):
            raise ValueError(f"{label}: {name} cannot be scheduled; these can: {', '.join(known)}")
        elif not hasattr(value, "update_interval"):
            result[name] = copy.copy(value)
            result[name].update_interval = UpdateInterval.STEP
    return result


def _drive_betas(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["betas"] = (group["momentum"], *group["betas"][1:])


class ScheduledGC(ClassyOptimizer):
    """Base of every GC optimizer: schedules and checkpoints, whatever it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.num_epochs: float | None = None  # those of the schedules, if a config has them
        self._schedules: Mapping[str, Any] = {}  # of the config
        self._resumed = False

    def label(self) -> str:
        """The name in messages."""
        return label_of(self)

    @abstractmethod
    def torch_optimizer(self, param_groups: Any) -> torch.optim.Optimizer:
        """Builds the optimizer that this one wraps.

        Args:
            param_groups: as for torch; the model is on its device.
        """

    def prepare(self, param_groups: Any) -> None:
        """Builds the torch optimizer; called by ``set_param_groups``.

        If it has ``betas``, a ``momentum`` in its groups becomes the first of them at each step, as
        with torch's ``OneCycleLR``. Schedules write the ``momentum``, whether the optimizer itself
        runs them, ``gc`` around it, or ``zero``.

        Args:
            param_groups: as for torch; the model is on its device.
        """
        self.optimizer = self.torch_optimizer(param_groups)
        if "betas" in self.optimizer.defaults and "momentum" not in self.optimizer.defaults:
            self.optimizer.register_step_pre_hook(_drive_betas)

    @abstractmethod
    def own_options(self) -> tuple[dict[str, Any], dict[str, Rule]]:
        """The options that a parameter group can have, without the ``momentum`` of ``betas``.

        Returns:
            The values that a group has by default, and what each option accepts.
        """

    def group_options(self) -> tuple[dict[str, Any], dict[str, Rule]]:
        """The options that a parameter group can have.

        Returns:
            The values that a group has by default, and what each option accepts; with ``momentum``
            if it can drive the first of ``betas``.

        Example:
            >>> from classy_gc.optim import AdamGC
            >>> values, rules = AdamGC(lr=0.5).group_options()
            >>> values["lr"], values["momentum"], rules["lr"].allowed
            (0.5, 0.9, 'a number >= 0')
        """
        values, rules = self.own_options()
        if isinstance(values.get("betas"), tuple) and "betas" in rules and "momentum" not in values:
            values = {**values, "momentum": values["betas"][0]}
            rules = {**rules, "momentum": FRACTION}
        return values, rules

    def keep_schedules(self, config: Mapping[str, Any]) -> "ScheduledGC":
        """Keeps the schedules of a config, for options that ``set_param_groups`` does not get.

        Args:
            config: of the optimizer, perhaps with ``param_schedulers`` and ``num_epochs``.

        Returns:
            The optimizer itself.

        Raises:
            ValueError: a schedule that is not read, or that leaves the range of its option.
        """
        if "param_groups" in config:  # a task that reads them has removed them
            raise ValueError(
                f"{self.label()}: param_groups needs the task 'paramwise_classification_task' or "
                "'paramwise_fine_tuning', which read it beside the name of their optimizer"
            )
        check_schedulers(config, self.label(), self.group_options()[1])
        self.num_epochs = config.get("num_epochs")
        self._schedules = config.get("param_schedulers", {})
        return self

    def scheduled_groups(self, param_groups: Any, common: dict[str, Any]) -> list[dict[str, Any]]:
        """Checked groups with all their options as ParamSchedulers.

        Args:
            param_groups: as for ``set_param_groups``.
            common: values or ParamSchedulers for all groups. An option that neither they nor a
                group set follows the schedule of the config, if there is one.

        Raises:
            ValueError: an option that the optimizer does not have or cannot schedule.
        """
        rules = self.group_options()[1]
        groups = [{**group, **common} for group in as_groups(param_groups)]
        for name, config in self._schedules.items():
            if any(name not in group for group in groups):
                key = f"{self.label()}: param_schedulers.{name}"
                kept = build_scheduler(config, key, rules[name], self.num_epochs)
                groups = [{name: kept, **group} for group in groups]
        for group in groups:
            if "weight_decay" not in rules and group.get("weight_decay") == 0:
                # Classy Vision's tasks give it to BatchNorm, whatever the optimizer.
                del group["weight_decay"]
            check_known(group, ["params", "param_names", *rules], self.label())
        return [as_schedulers(group, rules, self.label()) for group in groups]

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        """As in Classy Vision, and also with fvcore's own ParamSchedulers (updated at every step).

        Args:
            param_groups: tensors, ``(name, tensor)`` pairs, or dicts with ``params`` and the
                group's own values or ParamSchedulers of options.
            **kwargs: values or ParamSchedulers of options for all groups. An option that neither
                they nor a group set follows the schedule of the config, if there is one.

        Raises:
            ValueError: an option that the optimizer does not have or cannot schedule.
        """
        super().set_param_groups(self.scheduled_groups(param_groups, kwargs))

    def catch_up(self, where: float | None, optimizer: ClassyOptimizer) -> None:
        """Sets the options whose schedules change once per epoch to their current values.

        This acts only on the first call after a checkpoint was loaded, which may have had other
        schedules.

        Args:
            where: the share of training done, in [0, 1); None does nothing.
            optimizer: this one, or the ``zero`` around it.
        """
        if self._resumed and where is not None:
            if self.num_epochs:  # with gradient accumulation the first step is not at the start
                epochs = math.floor(where * self.num_epochs + ParamScheduler.WHERE_EPSILON)
                where = epochs / self.num_epochs
            ClassyOptimizer.on_epoch(optimizer, where)  # without what else `zero` does then
            self._resumed = False

    def step(
        self, *args: Any, closure: Callable[[], Any] | None = None, where: float | None = None
    ) -> None:
        """Takes a step, as in Classy Vision.

        Args:
            closure: reevaluates the model and returns the loss (default: None).
            where: the share of training done, in [0, 1); required.
        """
        self.catch_up(where, self)
        super().step(*args, closure=closure, where=where)

    def set_classy_state(self, state: dict[str, Any]) -> None:
        """Resumes from a checkpoint of any optimizer of this kind: stock, GC, or ``gc`` around one.

        Moments and options come from the checkpoint, as in the stock optimizers, except that
        scheduled options, GC options and speed switches are as configured. One warning names what
        differs.

        Args:
            state: from ``get_classy_state``.

        Raises:
            ValueError: the state belongs to another kind of optimizer.
        """
        super().set_classy_state(self.resumed(state, self))

    def resumed(self, state: dict[str, Any], optimizer: ClassyOptimizer) -> dict[str, Any]:
        """The state to load instead of the checkpoint's, see :func:`resumed_state`.

        Args:
            state: from ``get_classy_state``; not changed.
            optimizer: this one, or the ``zero`` around it.
        """
        self._resumed = True
        return resumed_state(state, optimizer, self.label())
