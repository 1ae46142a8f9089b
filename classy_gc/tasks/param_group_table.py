"""The parameter groups of any task, as a table."""

from typing import Any

from classy_vision.tasks import ClassyTask, FineTuningTask

from classy_gc.optim.groups import as_groups
from classy_gc.optim.stock import group_options
from classy_gc.param_groups.build import parameter_occurrences
from classy_gc.param_groups.tables import full_table
from classy_gc.tasks.paramwise_fine_tuning import freeze_trunk


def param_group_table(task: ClassyTask) -> str:
    """A table with one row per parameter: name, shape, module, group, options of the group.

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

    if isinstance(task, FineTuningTask) and task.freeze_trunk:
        freeze_trunk(model)  # the stock task does so later
    optimizer.set_param_groups = keep
    task.prepare_optimizer(optimizer=optimizer, model=model, loss=loss)
    named = [*parameter_occurrences(model), *parameter_occurrences(loss, "loss")]
    return full_table(groups, values, named)
