"""The parameter groups of any task, as a table."""

from __future__ import annotations

from typing import Any

from classy_vision.tasks import ClassyTask, FineTuningTask

from classy_gc.optim.groups import as_groups
from classy_gc.optim.stock import group_options
from classy_gc.param_groups.build import parameter_occurrences
from classy_gc.param_groups.tables import full_table
from classy_gc.tasks.paramwise_fine_tuning import freeze_trunk


class _Recorder:
    """Stands in for a task's optimizer, and keeps the groups that it gets."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        self.groups = [{**group, **kwargs} for group in as_groups(param_groups)]


def param_group_table(task: ClassyTask) -> str:
    """A table with one row per parameter: name, shape, module, group, options of the group.

    Args:
        task: built but not prepared; do not train it afterwards.

    Raises:
        ValueError: the builder of ``param_groups`` refuses an option.
    """
    model, loss, optimizer = task.base_model, task.base_loss, task.optimizer
    named = [*parameter_occurrences(model), *parameter_occurrences(loss, "loss")]
    if getattr(task, "param_group_builder", None) is not None:
        groups = task.build_param_groups(optimizer, model, loss)
    else:
        if isinstance(task, FineTuningTask) and task.freeze_trunk:
            freeze_trunk(model)
        task.optimizer = recorder = _Recorder()
        task.prepare_optimizer(optimizer=recorder, model=model, loss=loss)
        groups = recorder.groups
        names = {id(p.parameter): p.full_name for p in reversed(named)}
        for group in groups:
            group["param_names"] = [names[id(p)] for p in group["params"]]
    return full_table(groups, group_options(optimizer)[0], {p.full_name: p.module for p in named})
