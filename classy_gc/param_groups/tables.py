"""Parameter groups as tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY, ConstantParamScheduler
from classy_vision.tasks import ClassyTask
from fvcore.common.param_scheduler import ParamScheduler

from classy_gc.optim.scheduled_gc import as_groups
from classy_gc.optim.stock import group_options
from classy_gc.options import registered_name
from classy_gc.param_groups.build import freeze_trunk, parameter_occurrences
from classy_gc.param_groups.builder import MULTIPLIERS, ScaledParamScheduler
from classy_gc.param_groups.kinds import kind
from classy_gc.table import aligned


def _description(group: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    shown = {name: values[name] for name in MULTIPLIERS.values() if name in values}
    shown |= {name: value for name, value in group.items() if name not in ("params", "param_names")}
    return ", ".join(f"{name} {_text(value)}" for name, value in shown.items())


def _text(value: Any) -> str:
    if isinstance(value, ScaledParamScheduler):
        return f"{value.multiplier:g} × {_text(value.scheduler)}"
    if isinstance(value, ConstantParamScheduler):
        return _text(value(0))
    if isinstance(value, ParamScheduler):
        return f"{registered_name(type(value), PARAM_SCHEDULER_REGISTRY)} from {value(0):g}"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_table(groups: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    """A table with one row per group: tensors, elements, options.

    Args:
        groups: from :func:`build_param_groups`.
        values: of the optimizer's options, where a group does not say them.
    """
    rows = [("group", "tensors", "elements", "options")]
    for i, group in enumerate(groups):
        elements = sum(p.numel() for p in group["params"])
        rows.append((i, len(group["params"]), elements, _description(group, values)))
    return aligned(rows)


def param_group_table(task: ClassyTask) -> str:
    """A table with one row per parameter: name, shape, module, group, options of the group.

    Shared parameters count by their first names.

    Args:
        task: built but not prepared; do not train it afterwards.

    Raises:
        ValueError: the builder of ``param_groups`` refuses an option.
    """
    model, loss, optimizer = task.base_model, task.base_loss, task.optimizer
    values = group_options(optimizer)[0]
    groups: list[dict[str, Any]] = []

    def keep(param_groups: Any, **options: Any) -> None:
        groups.extend({**group, **options} for group in as_groups(param_groups))

    if getattr(task, "freeze_trunk", False):
        freeze_trunk(model)  # the stock task does so later
    optimizer.set_param_groups = keep
    task.prepare_optimizer(optimizer=optimizer, model=model, loss=loss)
    rows = [("parameter", "shape", "module", "group", "options")]
    named = [*parameter_occurrences(model), *parameter_occurrences(loss, "loss")]
    places = {id(place.parameter): place for place in reversed(named)}
    for i, group in enumerate(groups):
        for parameter in group["params"]:
            place = places[id(parameter)]
            shape = "×".join(map(str, parameter.shape)) or "1"
            described = _description(group, values) if parameter.requires_grad else "frozen"
            rows.append((place.full_name, shape, kind(place.module), i, described))
    return aligned(rows)
